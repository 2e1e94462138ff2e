//! Gives up what the agent does not need. Its children are not concerned: a root process gets the full set back when it
//! executes a program.

use caps::{CapSet, Capability, CapsHashSet};

/// What the agent itself does with privilege.
const NEEDED: [Capability; 13] = [
    // BPF programs and their events; on kernels before 5.8, and for network namespaces and mounts, CAP_SYS_ADMIN.
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_RESOURCE,
    // Addresses of kernel functions.
    Capability::CAP_SYSLOG,
    // Devices, addresses and routes of sandboxes.
    Capability::CAP_NET_ADMIN,
    // Giving a child a mount namespace that was prepared for it.
    Capability::CAP_SYS_CHROOT,
    // Finding and ending what a sandbox has started, as whatever user.
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_KILL,
    // Files of sandboxes, whoever owns them.
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_CHOWN,
];

/// Drops every other capability of the calling thread, and so of all threads that it starts.
pub(crate) fn drop_unneeded() {
    for set in [CapSet::Effective, CapSet::Permitted] {
        let kept = caps::read(None, set)
            .map(|had| NEEDED.into_iter().filter(|cap| had.contains(cap)).collect::<CapsHashSet>());
        if let Err(error) = kept.and_then(|kept| caps::set(None, set, &kept)) {
            // Not dropping is no reason not to measure.
            tracing::warn!("could not give up capabilities: {error}");
        }
    }
}
