//! Phases: what lies between the markers of a start.

use super::marker::Marker;

/// A named stretch between two markers. The phases of an instance follow each other without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name; see [`phases`].
    pub name: &'static str,
    /// Beginning, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

/// Which marker ends which phase.
///
/// | phase | ends when |
/// |---|---|
/// | `spawn` | the first process of the sandbox has executed its program |
/// | `runtime` | the runtime has executed the workload, or gVisor's sentry |
/// | `vmm` | the VMM has created the VM |
/// | `vm_setup` | a vCPU runs for the first time |
/// | `boot` | the guest has sent its first byte to the console or its first frame |
/// | `application` | the workload's socket listens |
/// | `callback` | the ready callback has arrived |
/// | `response` | the first good response is complete |
const ENDS: [(&str, &str); 10] = [
    ("first_exec", "spawn"),
    ("sentry_exec", "runtime"),
    ("workload_exec", "runtime"),
    ("vm_created", "vmm"),
    ("first_guest_entry", "vm_setup"),
    ("console_first_byte", "boot"),
    ("first_frame_out", "boot"),
    ("listen", "application"),
    ("callback", "callback"),
    ("first_response", "response"),
];

/// The phases from the launch to the first response, without gaps.
///
/// Markers outside that span or unknown to the table end no phase. A first frame is no boundary when the workload's socket was
/// seen to listen: then it only carries the callback.
pub fn phases(markers: &[Marker], launch_ns: u64, end_ns: u64) -> Vec<Phase> {
    let listens = markers.iter().any(|marker| marker.name == "listen");
    let mut ends: Vec<(u64, &'static str)> = ENDS
        .iter()
        .filter(|&&(name, _)| !(listens && name == "first_frame_out"))
        .filter_map(|&(name, phase)| {
            let first = markers.iter().filter(|marker| marker.name == name).map(|marker| marker.at_ns).min()?;
            (launch_ns < first && first <= end_ns).then_some((first, phase))
        })
        .collect();
    // A stable sort: of two markers at one instant the earlier in the table comes first, and the other phase is empty.
    ends.sort_by_key(|&(at, _)| at);
    let mut phases: Vec<Phase> = Vec::new();
    let mut start_ns = launch_ns;
    for (end_ns, name) in ends {
        if end_ns == start_ns {
            continue;
        }
        match phases.last_mut() {
            Some(last) if last.name == name => last.end_ns = end_ns,
            _ => phases.push(Phase { name, start_ns, end_ns }),
        }
        start_ns = end_ns;
    }
    if start_ns < end_ns {
        phases.push(Phase { name: "response", start_ns, end_ns });
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(name: &'static str, at_ns: u64) -> Marker {
        Marker { name, source: "test", at_ns, detail: None }
    }

    #[test]
    fn phases_follow_each_other_without_gaps() {
        let markers = [
            marker("first_exec", 110),
            marker("workload_exec", 150),
            marker("listen", 160),
            marker("first_frame_out", 165),
            marker("callback", 170),
            marker("first_response", 180),
        ];
        let phases = phases(&markers, 100, 180);
        let names: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["spawn", "runtime", "application", "callback", "response"]);
        assert_eq!(phases[0].start_ns, 100);
        assert_eq!(phases[4].end_ns, 180);
        assert!(phases.windows(2).all(|pair| pair[0].end_ns == pair[1].start_ns));
    }

    #[test]
    fn without_probes_only_the_client_is_a_witness() {
        let phases = phases(&[marker("callback", 170), marker("first_response", 180)], 100, 180);
        assert_eq!(phases.iter().map(|phase| phase.name).collect::<Vec<_>>(), ["callback", "response"]);
    }

    #[test]
    fn markers_after_the_end_are_ignored() {
        let phases = phases(&[marker("listen", 190)], 100, 180);
        assert_eq!(phases, [Phase { name: "response", start_ns: 100, end_ns: 180 }]);
    }
}
