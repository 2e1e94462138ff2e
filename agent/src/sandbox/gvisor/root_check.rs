//! Lets old versions of runsc run on new kernels.
//!
//! runsc refuses to give the host's own network to a sandbox, and takes the network namespace for the host's when it finds
//! [`TELLTALE`] in it. Since Linux 6.11 every namespace has that file, so runsc up to 20240729 (the newest that Debian
//! packages) starts no sandbox with a network of its own there: <https://github.com/google/gvisor/issues/10704>.
//!
//! The remedy is a mount namespace for `runsc run` in which an empty tmpfs covers that directory of sysctls.

use crate::sandbox::{blocking, mounts, network::Private, runtime::Runtime};
use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
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
    blocking::on_a_thread("mounts", || {
        // From here on /proc/sys/net shows that namespace, and what is mounted there covers it there only.
        move_into_link_name_space(network.namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("could not enter the instance's network namespace")?;
        if !Path::new(TELLTALE).exists() || date(&runsc.version()?).is_none_or(|date| date > LAST_AFFECTED) {
            return Ok(None);
        }
        let cover = || {
            mount("tmpfs", COVERED, "tmpfs", MountFlags::RDONLY, c"size=0")
                .with_context(|| format!("could not cover {COVERED}"))
        };
        mounts::namespace(cover).map(Some)
    })
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
