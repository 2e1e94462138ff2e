//! Containers that were made by a runtime without an engine, or whose engine is not known: by the state that runc, crun, runsc and youki
//! keep of each.

use super::{super::bounded, Container, Looked, MOST_ENTRIES, MOST_STATE};
use crate::steady::members::threads_of;
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders of state, by the program that has them by itself.
const FOLDERS: [&str; 4] = ["runc", "crun", "runsc", "youki"];
/// Folders of such folders: what engines tell runtimes to use.
const OF_ENGINES: [&str; 4] =
    ["/run/containerd/runc", "/run/docker/runtime-runc", "/run/docker/runtime-runsc", "/run/containerd/runsc"];

/// What runtimes write about a container; each its own part of this.
#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    id: Option<String>,
    /// crun and youki.
    pid: Option<i32>,
    /// runc, with the time of its start.
    init_process_pid: Option<i32>,
    init_process_start: Option<u64>,
    #[serde(rename = "process-start-time")]
    process_start_time: Option<u64>,
    /// runsc: the sentry.
    sandbox: Option<Sandbox>,
}

#[derive(Deserialize)]
struct Sandbox {
    pid: Option<Pid>,
}

/// Newer versions of runsc write a number, and before it an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pid {
    Number(i32),
    Other(serde::de::IgnoredAny),
}

impl State {
    /// The first process, if it still is that.
    fn pid(&self) -> Option<i32> {
        let sentry = self.sandbox.as_ref().and_then(|sandbox| match sandbox.pid {
            Some(Pid::Number(pid)) => Some(pid),
            _ => None,
        });
        let pid = self.init_process_pid.or(self.pid).or(sentry).filter(|&pid| pid > 0)?;
        // Else the number has been given out anew.
        let started = self.init_process_start.or(self.process_start_time).filter(|&start| start > 0);
        let is_same = |start: u64| {
            let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
            stat.is_ok_and(|stat| stat.starttime == start)
        };
        (!threads_of(pid.cast_unsigned()).is_empty() && started.is_none_or(is_same)).then_some(pid)
    }
}

/// The containers of all folders that are known.
pub fn look() -> Looked {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let runs = [PathBuf::from("/run")].into_iter().chain(own);
    let mut folders: Vec<PathBuf> = runs.flat_map(|run| FOLDERS.map(|folder| run.join(folder))).collect();
    folders.extend(OF_ENGINES.iter().flat_map(|folder| entries(Path::new(folder))));
    folders.retain(|folder| folder.is_dir());
    let containers: Vec<Container> = folders.iter().flat_map(|folder| of(folder)).collect();
    let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let place = if places.is_empty() { format!("/run/{}", FOLDERS.join(", /run/")) } else { places.join(", ") };
    Looked { place: format!("runtimes' state in {place}"), containers }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_ENTRIES);
    entries.map(|entry| entry.path()).collect()
}

/// Those of a folder: `ID/state.json` of runc and youki, `ID/status` of crun, `ID_sandbox:ID.state` of runsc.
fn of(folder: &Path) -> Vec<Container> {
    let read = entries(folder).into_iter().filter_map(|entry| {
        let name = entry.file_name()?.to_str()?.to_owned();
        let files = [entry.join("state.json"), entry.join("status"), entry.clone()];
        let state: State = files.iter().find_map(|file| bounded::json(file, MOST_STATE))?;
        let id = state.id.clone().unwrap_or_else(|| name.split("_sandbox:").next().unwrap_or(&name).to_owned());
        Some(Container { engine: "a runtime", pid: state.pid(), id, ..Container::default() })
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_each_runtime_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let start = procfs::process::Process::myself().unwrap().stat().unwrap().starttime;
        let write = |file: &str, text: String| {
            let file = directory.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("a/state.json", format!(r#"{{"id":"a","init_process_pid":{own},"init_process_start":{start}}}"#));
        write("b/status", format!(r#"{{"pid":{own},"process-start-time":{start},"bundle":"/b"}}"#));
        write("c_sandbox:c.state", format!(r#"{{"id":"c","sandbox":{{"id":"c","pid":{own}}}}}"#));
        write("d/state.json", format!(r#"{{"id":"d","init_process_pid":{own},"init_process_start":{}}}"#, start + 1));
        write("e/state.json", r#"{"id":"e","pid":null,"status":"stopped"}"#.to_owned());
        write("f/state.json", "[".to_owned());
        write("g/state.json", r#"{"id":"g","pid":-1}"#.to_owned());
        let mut found = of(directory.path());
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let pid = Some(own.cast_signed());
        let seen: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.pid)).collect();
        assert_eq!(seen, [("a", pid), ("b", pid), ("c", pid), ("d", None), ("e", None), ("g", None)]);
    }
}
