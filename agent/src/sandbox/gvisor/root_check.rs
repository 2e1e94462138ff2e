//! Lets old versions of runsc run on new kernels.
//!
//! runsc refuses to give the host's own network to a sandbox, and takes the network namespace for the host's when it finds
//! [`TELLTALE`] in it. Since Linux 6.11 every namespace has that file, so runsc up to 20240729 (the newest that Debian
//! packages) starts no sandbox with a network of its own there: <https://github.com/google/gvisor/issues/10704>.
//!
//! The remedy is a mount namespace for `runsc run` in which an empty tmpfs covers that directory of sysctls. It is made before
//! the timed window; entering it costs one more system call in the child.

use crate::sandbox::{network::Private, runtime::Runtime};
use anyhow::{Context as _, Result, anyhow};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

/// What the manifest says of an instance that was started so.
pub const CONDITION: &str = "/proc/sys/net/core hidden from runsc (google/gvisor#10704)";

/// Present in the initial network namespace only, on the kernels that the old versions know.
const TELLTALE: &str = "/proc/sys/net/core/rmem_default";

/// The directory of [`TELLTALE`].
const COVERED: &str = "/proc/sys/net/core";

/// Date of the last version that looks for [`TELLTALE`].
const LAST_AFFECTED: u32 = 20_240_729;

/// A mount namespace in which this runsc accepts the network namespace; `None` when it does so anyway.
///
/// # Errors
/// When runsc does not tell its version, or the kernel refuses to make a namespace.
pub fn hide(runsc: &Runtime, network: &Private) -> Result<Option<OwnedFd>> {
    // A thread of its own, since it changes its namespaces for good.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("mounts".into());
        let thread = thread.spawn_scoped(scope, || namespace(runsc, network)).context("could not start a thread")?;
        thread.join().unwrap_or_else(|_| Err(anyhow!("the thread that makes a mount namespace panicked")))
    })
}

fn namespace(runsc: &Runtime, network: &Private) -> Result<Option<OwnedFd>> {
    // From here on /proc/sys/net shows that namespace, and what is mounted there covers it there only.
    move_into_link_name_space(network.namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .context("could not enter the instance's network namespace")?;
    if !Path::new(TELLTALE).exists() || date(&runsc.version()?).is_none_or(|date| date > LAST_AFFECTED) {
        return Ok(None);
    }
    // SAFETY: `unshare` is unsafe because of file descriptors and memory that may stop to be shared; a mount namespace
    // concerns neither, and the working directory, which it unshares, is not used by this thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("could not make a mount namespace")?;
    // What the host mounts and unmounts later shall happen here too, and nothing the other way.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .context("could not keep a mount namespace's mounts to itself")?;
    mount("tmpfs", COVERED, "tmpfs", MountFlags::RDONLY, c"size=0")
        .with_context(|| format!("could not cover {COVERED}"))?;
    let path = "/proc/thread-self/ns/mnt";
    Ok(Some(File::open(path).with_context(|| format!("could not open {path}"))?.into()))
}

/// The date in a version such as `runsc version release-20240729.0`, as a number of eight digits.
fn date(version: &str) -> Option<u32> {
    version.split(|character: char| !character.is_ascii_digit()).find(|digits| digits.len() == 8)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_found_in_the_versions_of_all_who_package_it() {
        assert_eq!(date("runsc version 0.0~20240729.0"), Some(20_240_729));
        assert_eq!(date("runsc version release-20250512.0-20-g3fb2ab"), Some(20_250_512));
        assert_eq!(date("runsc version VERSION_MISSING"), None);
    }
}
