//! How long each CPU of the host was in which idle state. A CPU inside a virtual machine often has none to show.

use std::{fs, path::Path};

const CPUS: &str = "/sys/devices/system/cpu";

/// One idle state of one CPU, since the host booted or over a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleState {
    /// Number of the CPU.
    pub cpu: u32,
    /// Name of the state.
    pub state: String,
    /// Time in it.
    pub time_ns: u64,
    /// How often it was entered.
    pub entries: u64,
}

/// All of them since the host booted; empty where the host shows none.
pub fn read() -> Vec<IdleState> {
    read_below(Path::new(CPUS))
}

fn read_below(cpus: &Path) -> Vec<IdleState> {
    let numbered =
        |path: &Path, prefix: &str| -> Option<u32> { path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok() };
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut states = Vec::new();
    for cpu_path in entries(cpus) {
        let Some(cpu) = numbered(&cpu_path, "cpu") else { continue };
        for state_path in entries(&cpu_path.join("cpuidle")) {
            let number = |file: &str| fs::read_to_string(state_path.join(file)).ok()?.trim().parse::<u64>().ok();
            let name = fs::read_to_string(state_path.join("name"));
            if let (Some(_), Some(time_us), Some(entries), Ok(name)) =
                (numbered(&state_path, "state"), number("time"), number("usage"), name)
            {
                states.push(IdleState { cpu, state: name.trim().to_owned(), time_ns: time_us * 1000, entries });
            }
        }
    }
    states.sort_by(|a, b| (a.cpu, &a.state).cmp(&(b.cpu, &b.state)));
    states
}

/// What happened between two readings.
pub fn between(before: &[IdleState], after: Vec<IdleState>) -> Vec<IdleState> {
    let earlier = |state: &IdleState| before.iter().find(|old| old.cpu == state.cpu && old.state == state.state);
    after
        .into_iter()
        .filter_map(|state| {
            let old = earlier(&state)?;
            let (time_ns, entries) =
                (state.time_ns.saturating_sub(old.time_ns), state.entries.saturating_sub(old.entries));
            Some(IdleState { time_ns, entries, ..state })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_and_subtracted() {
        let cpus = tempfile::tempdir().unwrap();
        let state = cpus.path().join("cpu3/cpuidle/state1");
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(cpus.path().join("cpufreq")).unwrap();
        let write = |time: &str, usage: &str| {
            for (file, text) in [("name", "C1\n"), ("time", time), ("usage", usage)] {
                fs::write(state.join(file), text).unwrap();
            }
        };
        write("100\n", "5\n");
        let before = read_below(cpus.path());
        write("150\n", "7\n");
        let states = between(&before, read_below(cpus.path()));
        assert_eq!(states, [IdleState { cpu: 3, state: "C1".to_owned(), time_ns: 50_000, entries: 2 }]);
    }

    #[test]
    fn a_host_without_them_has_none() {
        let cpus = tempfile::tempdir().unwrap();
        fs::create_dir_all(cpus.path().join("cpu0")).unwrap();
        assert!(read_below(cpus.path()).is_empty());
    }
}
