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
/// | `restore` | the VMM has loaded a snapshot and lets it go on |
/// | `boot` | the guest has sent its first byte to the console or its first frame; in gVisor, the workload's `main` begins |
/// | `kernel` | the guest's kernel has started its first process, or in a unikernel its only program |
/// | `init` | that process starts the workload |
/// | `application` | the workload's socket listens; in a guest, its console says so or its first frame leaves |
/// | `callback` | the ready callback has arrived |
/// | `response` | the first good response is complete |
/// | `unobserved` | the next of these instants that was seen: several phases lie before it, of which nobody saw where one ends |
const ENDS: [(&str, &str); 17] = [
    ("first_exec", "spawn"),
    ("sentry_exec", "runtime"),
    ("workload_exec", "runtime"),
    ("vm_created", "vmm"),
    ("first_guest_entry", "vm_setup"),
    ("restored", "restore"),
    ("console_first_byte", "boot"),
    ("boot_timer", "kernel"),
    ("guest_init", "kernel"),
    ("guest_main", "kernel"),
    ("guest_app", "init"),
    ("workload_main", "boot"),
    ("first_frame_out", "boot"),
    ("listen", "application"),
    ("guest_listens", "application"),
    ("callback", "callback"),
    ("first_response", "response"),
];
/// Of the phases that were not told apart, as without probes, which alone see that a program is executed.
const UNOBSERVED: &str = "unobserved";
/// The phase that every start begins with.
const FIRST: &str = "spawn";
/// The one that begins when the workload is up, and what says that it is.
const CALLBACK: &str = "callback";
const UP: [&str; 4] = ["listen", "guest_listens", "first_frame_out", "restored"];

/// The phases from the launch to the first response, without gaps.
///
/// Markers outside that span or unknown to the table end no phase. A first frame is no boundary when somebody told that the
/// workload's socket listens: then it only carries the callback. A console, which is read later than it is written, has its word in
/// that between the line that says that the workload starts and the callback. When a guest has said that its workload starts, the
/// first frame ends what the workload did since. When a guest has said something else, its boot is over, and the frame ends nothing:
/// on a busy host a console is read so late that the workload seems to have sent before it was started. That `main` began ends a
/// phase where a sentry ran since: elsewhere the workload's program is loaded by then, which is a part of `application`.
pub fn phases(markers: &[Marker], launch_ns: u64, end_ns: u64) -> Vec<Phase> {
    let first = |name: &str| markers.iter().filter(|marker| marker.name == name).map(|marker| marker.at_ns).min();
    let restored = first("restored");
    let main = first("workload_main").filter(|&main| first("sentry_exec").is_some_and(|sentry| sentry < main));
    let started = [first("guest_app"), first("guest_main"), main].into_iter().flatten().max();
    let is_told = |&listens: &u64| {
        first("callback").is_none_or(|callback| listens < callback) && started.is_none_or(|started| started < listens)
    };
    let told = first("guest_listens").filter(is_told);
    let listens = first("listen").or(told).is_some();
    let spoke = first("console_first_byte");
    let mut ends: Vec<(u64, &'static str, &'static str)> = ENDS
        .iter()
        .filter(|&&(name, _)| match name {
            "first_frame_out" => !listens,
            "guest_listens" => told.is_some(),
            "workload_main" => main.is_some(),
            _ => true,
        })
        .filter_map(|&(name, phase)| {
            let at_ns = first(name)?;
            // Such a guest has done all that before, and its VMM says that it goes on when it may already run.
            if restored.is_some() && !["spawn", "vmm", "restore", "callback", "response"].contains(&phase) {
                return None;
            }
            let is_application = name == "first_frame_out" && started.is_some_and(|started| started < at_ns);
            if name == "first_frame_out" && !is_application && spoke.is_some_and(|spoke| spoke < at_ns) {
                return None;
            }
            let phase = if is_application { "application" } else { phase };
            (launch_ns < at_ns && at_ns <= end_ns).then_some((at_ns, phase, name))
        })
        .collect();
    // A stable sort: of two markers at one instant the earlier in the table comes first, and the other phase is empty.
    ends.sort_by_key(|&(at, ..)| at);
    let mut phases: Vec<Phase> = Vec::new();
    let mut start_ns = launch_ns;
    let mut since = None;
    for (end_ns, name, marker) in ends {
        if end_ns == start_ns {
            continue;
        }
        let begins = match name {
            FIRST => true,
            CALLBACK => since.is_some_and(|since| UP.contains(&since)),
            _ => since.is_some(),
        };
        let name = if begins { name } else { UNOBSERVED };
        since = Some(marker);
        match phases.last_mut() {
            Some(last) if last.name == name => last.end_ns = end_ns,
            _ => phases.push(Phase { name, start_ns, end_ns }),
        }
        start_ns = end_ns;
    }
    if start_ns < end_ns {
        let name = if phases.is_empty() { UNOBSERVED } else { "response" };
        phases.push(Phase { name, start_ns, end_ns });
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
    fn in_a_guest_the_first_frame_stands_for_the_socket() {
        let console = ["first_exec", "console_first_byte", "guest_init", "guest_app"];
        let names = |more: &[Marker]| {
            let console: Vec<_> = console.iter().zip([110, 120, 150, 160]).map(|(name, at)| marker(name, at)).collect();
            let all = [&console[..], more].concat();
            phases(&all, 100, 190).iter().map(|phase| phase.name).collect::<Vec<_>>()
        };
        let later = [marker("first_frame_out", 170), marker("callback", 180)];
        assert_eq!(names(&later), ["spawn", "boot", "kernel", "init", "application", "callback", "response"]);
        // One that sends before it starts its workload, or seems to.
        for at_ns in [140, 155] {
            let earlier = [marker("first_frame_out", at_ns), marker("callback", 180)];
            assert_eq!(names(&earlier), ["spawn", "boot", "kernel", "init", "unobserved", "response"]);
        }
    }

    #[test]
    fn in_a_guest_that_says_that_it_listens_the_application_lasts_until_then() {
        let markers = [
            marker("first_exec", 110),
            marker("console_first_byte", 120),
            marker("guest_main", 130),
            marker("first_frame_out", 140),
            marker("guest_listens", 170),
        ];
        let phases = phases(&markers, 100, 190);
        let found: Vec<_> = phases.iter().map(|phase| (phase.name, phase.end_ns)).collect();
        assert_eq!(found, [("spawn", 110), ("boot", 120), ("kernel", 130), ("application", 170), ("response", 190)]);
    }

    #[test]
    fn a_console_is_heard_before_the_callback_alone() {
        let names = |listens, frame| {
            let seen =
                [("first_exec", 110), ("console_first_byte", 120), ("guest_main", 130), ("first_frame_out", frame)];
            let seen = seen.into_iter().chain([("guest_listens", listens), ("callback", 180)]);
            let markers: Vec<_> = seen.map(|(name, at_ns)| marker(name, at_ns)).collect();
            phases(&markers, 100, 190).iter().map(|phase| (phase.name, phase.end_ns)).collect::<Vec<_>>()
        };
        let booted = [("spawn", 110), ("boot", 120), ("kernel", 130)];
        let rest = [("application", 170), ("callback", 180), ("response", 190)];
        assert_eq!(names(170, 125), [&booted[..], &rest].concat());
        // Read too late, and together with the line before it.
        for listens in [185, 130] {
            assert_eq!(names(listens, 170), [&booted[..], &rest].concat());
            assert_eq!(names(listens, 125), [&booted[..], &[("unobserved", 180), ("response", 190)]].concat());
        }
    }

    #[test]
    fn a_sentry_has_booted_when_the_workload_begins() {
        let names = |more: &[Marker]| {
            let sentry = [("first_exec", 110), ("sentry_exec", 120), ("callback", 180)];
            let all: Vec<_> =
                sentry.map(|(name, at_ns)| marker(name, at_ns)).into_iter().chain(more.to_vec()).collect();
            phases(&all, 100, 190).iter().map(|phase| (phase.name, phase.end_ns)).collect::<Vec<_>>()
        };
        let rest = [("callback", 180), ("response", 190)];
        for up in ["first_frame_out", "listen"] {
            let seen = [marker("workload_main", 150), marker(up, 170)];
            let expected = [("spawn", 110), ("runtime", 120), ("boot", 150), ("application", 170)];
            assert_eq!(names(&seen), [&expected[..], &rest].concat());
        }
        // One that says nothing of the kind, and one that says it of a time before there was a sentry.
        for seen in [vec![], vec![marker("workload_main", 115)]] {
            let seen = [seen, vec![marker("first_frame_out", 170)]].concat();
            assert_eq!(names(&seen), [&[("spawn", 110), ("runtime", 120), ("boot", 170)][..], &rest].concat());
        }
    }

    #[test]
    fn a_guest_that_was_restored_neither_boots_nor_starts_its_workload() {
        let markers = [
            marker("first_exec", 110),
            marker("vm_created", 120),
            marker("first_guest_entry", 125),
            marker("restored", 130),
            marker("first_frame_out", 150),
            marker("first_response", 190),
        ];
        let phases = phases(&markers, 100, 190);
        let found: Vec<_> = phases.iter().map(|phase| (phase.name, phase.end_ns)).collect();
        assert_eq!(found, [("spawn", 110), ("vmm", 120), ("restore", 130), ("response", 190)]);
    }

    #[test]
    fn a_phase_is_the_same_with_and_without_probes_or_is_not_observed() {
        let names = |markers: &[Marker]| {
            phases(markers, 100, 180).iter().map(|phase| (phase.name, phase.end_ns)).collect::<Vec<_>>()
        };
        // Only the client is a witness, or the guest's console too, or nobody.
        let client = [marker("callback", 170), marker("first_response", 180)];
        assert_eq!(names(&client), [("unobserved", 170), ("response", 180)]);
        let console = [&[marker("console_first_byte", 120), marker("guest_init", 150)], &client[..]].concat();
        assert_eq!(names(&console), [("unobserved", 120), ("kernel", 150), ("unobserved", 170), ("response", 180)]);
        assert_eq!(names(&[]), [("unobserved", 180)]);
        assert_eq!(names(&client[1..]), [("unobserved", 180)]);
    }

    #[test]
    fn markers_after_the_end_are_ignored() {
        let phases = phases(&[marker("listen", 190)], 100, 180);
        assert_eq!(phases, [Phase { name: "unobserved", start_ns: 100, end_ns: 180 }]);
    }
}
