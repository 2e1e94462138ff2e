//! Containers that `conmon` looks after: those of Podman and CRI-O, of any user and wherever their books are, since it is told all that
//! matters of its container on its command line.

use super::{
    super::{bounded, process::Process},
    Container, Looked,
};
use std::{collections::BTreeMap, path::Path};

/// Bytes of a file with a number.
const MOST_NUMBER: u64 = 32;

/// The containers of those that run.
pub fn look(all: &BTreeMap<i32, Process>) -> Looked {
    let monitors: Vec<&Process> = all.values().filter(|process| is_conmon(process)).collect();
    let containers: Vec<Container> = monitors.iter().filter_map(|monitor| of(monitor, all)).collect();
    Looked { place: format!("Podman and CRI-O: {} conmon run", monitors.len()), containers }
}

fn is_conmon(process: &Process) -> bool {
    // conmon-rs is one for many, and is told nothing.
    process.program().is_some_and(|name| name == "conmon")
}

fn of(monitor: &Process, all: &BTreeMap<i32, Process>) -> Option<Container> {
    let told = told(&monitor.arguments)?;
    // The path is one of its own mounts.
    let path = Path::new(told.pid_file).strip_prefix("/").ok()?;
    let written = bounded::text(&monitor.file("root").join(path), MOST_NUMBER);
    let written = written.and_then(|text| text.trim().parse().ok());
    // What is written may be old, or another's: conmon is the parent of its container.
    let is_child = |pid: &i32| all.get(pid).is_some_and(|process| process.parent == monitor.pid);
    let child = || all.values().find(|process| process.parent == monitor.pid).map(|process| process.pid);
    let pid = written.filter(is_child).or_else(child);
    let names = told.name.map(str::to_owned).into_iter().collect();
    Some(Container { engine: "Podman", id: told.id.to_owned(), names, pods: Vec::new(), pid })
}

/// What a conmon was told.
struct Told<'a> {
    id: &'a str,
    name: Option<&'a str>,
    pid_file: &'a str,
}

/// `None` for one that looks after a process that was started in a container later.
fn told(arguments: &[String]) -> Option<Told<'_>> {
    let is = |word: &String, names: [&str; 2]| names.contains(&word.split('=').next().unwrap_or_default());
    let value = |short: &'static str, long: &'static str| {
        let at = arguments.iter().position(|word| is(word, [short, long]))?;
        match arguments[at].split_once('=') {
            Some((_, value)) => Some(value),
            None => arguments.get(at + 1).map(String::as_str),
        }
    };
    if arguments.iter().any(|word| is(word, ["-e", "--exec"])) {
        return None;
    }
    Some(Told {
        id: value("-c", "--cid")?,
        name: value("-n", "--name"),
        pid_file: value("-p", "--container-pidfile").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn containers_are_told_and_what_is_executed_in_them_is_not_one() {
        let line = "/usr/bin/conmon --api-version 1 -c 4711ab -u 4711ab -r /usr/bin/crun -b /b -p /b/pidfile -n web --exit-dir /e";
        let arguments = words(line);
        let told = told(&arguments).unwrap();
        assert_eq!((told.id, told.name, told.pid_file), ("4711ab", Some("web"), "/b/pidfile"));
        let crio = words("conmon --cid=4711ab --name=k8s_web_0 --container-pidfile=/p");
        let told = super::told(&crio).unwrap();
        assert_eq!((told.id, told.name, told.pid_file), ("4711ab", Some("k8s_web_0"), "/p"));
        assert!(super::told(&words("conmon -c 4711ab -n web -p /p -e --exec-process-spec /s")).is_none());
        assert!(super::told(&words("conmon --version")).is_none());
        assert!(super::told(&words("conmon -c")).is_none());
    }

    #[test]
    fn the_container_is_a_child_of_conmon_whatever_the_file_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pidfile");
        let own = std::process::id().cast_signed();
        let monitor = |pid_file: &str| Process {
            pid: own,
            arguments: words(&format!("conmon -c 4711ab -n web -p {pid_file}")),
            ..Process::default()
        };
        let child = |pid: i32, parent: i32| (pid, Process { pid, parent, ..Process::default() });
        let all = [child(70, own), child(71, own), child(72, 1)].into();
        let found = |text: &str| {
            std::fs::write(&file, text).unwrap();
            of(&monitor(file.to_str().unwrap()), &all).unwrap().pid
        };
        assert_eq!(found("71\n"), Some(71));
        assert_eq!(found("72"), Some(70), "another's");
        assert_eq!(found("rubbish"), Some(70));
        assert_eq!(of(&monitor("/no/such/file"), &[child(72, 1)].into()).unwrap().pid, None);
    }
}
