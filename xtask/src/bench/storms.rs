//! How much slower a storm of exits and a storm of context switches get when somebody looks at them.

use super::{median, observer::Observer, victim::Victim};
use anyhow::Result;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// A storm, and how observers other than sandscope look at it.
struct Storm {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
    /// Of perf.
    events: &'static str,
    /// Of bpftrace: counts and times what sandscope counts and times.
    script: &'static str,
}

fn storms(programs: &Path) -> [Storm; 2] {
    [
        Storm {
            name: "a guest that leaves to the VMM as fast as it can (`sandscope-kvm-floor --pio 150000`)",
            program: programs.join("sandscope-kvm-floor"),
            arguments: &["--pio", "150000"],
            events: "kvm:kvm_userspace_exit,kvm:kvm_fpu,kvm:kvm_pio,sched:sched_switch,sched:sched_waking",
            script: "tracepoint:kvm:kvm_userspace_exit /pid == PID/ { @at[tid] = nsecs; @why[tid] = args->reason; } \
                     tracepoint:kvm:kvm_fpu /pid == PID && args->load == 1 && @at[tid]/ \
                     { @time[@why[tid]] = hist(nsecs - @at[tid]); @count[@why[tid]] = count(); delete(@at[tid]); } \
                     tracepoint:sched:sched_switch /pid == PID/ { @off[tid] = nsecs; } \
                     tracepoint:sched:sched_waking /args->pid == PID/ { @woken[args->pid, comm] = count(); }",
        },
        Storm {
            name: "two processes that hand a byte to each other (`perf bench sched pipe -l 100000`)",
            program: "perf".into(),
            arguments: &["bench", "sched", "pipe", "-l", "100000"],
            events: "sched:sched_switch,sched:sched_waking",
            script: "tracepoint:sched:sched_waking { @at[args->pid] = nsecs; @woken[args->pid, comm] = count(); } \
                     tracepoint:sched:sched_switch /@at[args->next_pid]/ \
                     { @latency[args->next_pid] = hist(nsecs - @at[args->next_pid]); delete(@at[args->next_pid]); }",
        },
    ]
}

/// The section of the page.
///
/// # Errors
/// When a victim fails.
pub(super) fn section(programs: &Path, rounds: u32) -> Result<String> {
    let mut text = String::from(
        "## Slow-down of what is looked at\n\nMedian wall time; observers take turns, so that what the host does besides \
         meets all of them alike.\n\n| storm | observer | time | slow-down |\n|---|---|---:|---:|\n",
    );
    let folder = tempfile::tempdir()?;
    for storm in storms(programs) {
        if storm.arguments.contains(&"--pio") && !Path::new("/dev/kvm").exists() {
            writeln!(text, "| {} | | not measured: no /dev/kvm | |", storm.name)?;
            continue;
        }
        let mut times: [Vec<f64>; Observer::ALL.len()] = Default::default();
        for _ in 0..rounds {
            for (observer, times) in Observer::ALL.into_iter().zip(&mut times) {
                let victim = Victim::stopped(&storm.program, storm.arguments)?;
                let watching = observer.start(&victim, programs, (storm.events, storm.script), folder.path())?;
                times.push(victim.run()?.as_secs_f64());
                drop(watching);
            }
        }
        let medians = times.map(median);
        for (observer, time) in Observer::ALL.into_iter().zip(medians) {
            let slower = (time / medians[0] - 1.0) * 100.0;
            let slower = if observer == Observer::None { String::new() } else { format!("{slower:+.1} %") };
            writeln!(text, "| {} | {} | {:.2} s | {slower} |", storm.name, observer.name(), time)?;
        }
    }
    Ok(text)
}
