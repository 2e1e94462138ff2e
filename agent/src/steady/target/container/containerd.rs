//! containerd's containers in all its namespaces, by the folders that it keeps for those that run, and with the names that Kubernetes and
//! nerdctl give them. Its own data base has more, and is locked.

use super::{
    super::{
        bounded,
        process::{Process, descends},
    },
    Container, Looked, MOST_ENTRIES, MOST_STATE,
};
use crate::steady::members::threads_of;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The folder of tasks, in the folder for state that containerd was told.
const TASKS: &str = "io.containerd.runtime.v2.task";
/// The folders for state of containerd by itself, of Docker's, and of two distributions of Kubernetes.
const STATES: [&str; 4] = [
    "/run/containerd",
    "/run/docker/containerd/daemon",
    "/run/k3s/containerd",
    "/var/snap/microk8s/common/run/containerd",
];
/// What the names of its shims begin with.
const SHIM: &str = "containerd-shim";
/// Bytes of a file with a number.
const MOST_NUMBER: u64 = 32;

/// What is read of a container's `config.json`.
#[derive(Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The containers of all that run.
pub fn look(all: &BTreeMap<i32, Process>) -> Looked {
    let shims: Vec<&Process> =
        all.values().filter(|process| process.program().is_some_and(|name| name.starts_with(SHIM))).collect();
    let mut folders: BTreeSet<PathBuf> =
        STATES.iter().map(|state| Path::new(state).join(TASKS)).filter(|folder| folder.is_dir()).collect();
    // One that was told another folder: its shims work in the folder of their container.
    let of_shim = |shim: &&Process| Some(fs::read_link(shim.file("cwd")).ok()?.parent()?.parent()?.to_owned());
    folders.extend(shims.iter().filter_map(of_shim).filter(|folder| folder.ends_with(TASKS)));
    let containers: Vec<Container> = folders.iter().flat_map(|folder| of(folder, &shims, all)).collect();
    let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let place =
        if places.is_empty() { format!("{}/{TASKS}, which is not there", STATES[0]) } else { places.join(", ") };
    Looked { place: format!("containerd in {place}"), containers }
}

/// Those of a folder of tasks: `NAMESPACE/ID`.
fn of(folder: &Path, shims: &[&Process], all: &BTreeMap<i32, Process>) -> Vec<Container> {
    let mut containers = Vec::new();
    for namespace in entries(folder) {
        for id in entries(&folder.join(&namespace)) {
            let bundle = folder.join(&namespace).join(&id);
            let pid = bounded::text(&bundle.join("init.pid"), MOST_NUMBER).and_then(|text| text.trim().parse().ok());
            let pid = pid.filter(|&pid: &i32| !threads_of(pid.cast_unsigned()).is_empty());
            let pid = pid.or_else(|| beside_shim(&id, shims, all));
            let told: Configuration = bounded::json(&bundle.join("config.json"), MOST_STATE).unwrap_or_default();
            let (mut names, pods) = names(&told.annotations);
            names.push(format!("{namespace}/{id}"));
            containers.push(Container { engine: "containerd", id, names, pods, pid });
        }
    }
    containers
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_ENTRIES);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A container in a VM has no process here but the VMM, a child of its shim.
fn beside_shim(id: &str, shims: &[&Process], all: &BTreeMap<i32, Process>) -> Option<i32> {
    let is_its = |shim: &&&Process| {
        let mut pairs = shim.arguments.windows(2);
        pairs.any(|pair| ["-id", "--id"].contains(&pair[0].as_str()) && pair[1] == id)
    };
    let shim = shims.iter().find(is_its)?;
    // One of runc has none either while its container is being made or has ended.
    if shim.program().is_some_and(|name| name.contains("runc")) {
        return None;
    }
    all.keys().any(|&pid| descends(all, pid, shim.pid)).then_some(shim.pid)
}

/// What a container is called, and its pod, by who had it made. The last name of a pod is that of one alone.
fn names(annotations: &BTreeMap<String, String>) -> (Vec<String>, Vec<String>) {
    let of = |key: &str| annotations.get(key).filter(|value| !value.is_empty());
    // containerd's plugin for Kubernetes, and CRI-O's spelling of the same.
    let kubernetes = |name: &str, other: &str| of(&format!("io.kubernetes.cri.{name}")).or_else(|| of(other));
    let container = kubernetes("container-name", "io.kubernetes.container.name");
    let pod = kubernetes("sandbox-name", "io.kubernetes.pod.name");
    let namespace = kubernetes("sandbox-namespace", "io.kubernetes.pod.namespace");
    let mut names: Vec<String> = of("nerdctl/name").into_iter().chain(container).cloned().collect();
    let mut pods = Vec::new();
    if let Some(pod) = pod {
        pods.push(pod.clone());
        pods.extend(namespace.map(|namespace| format!("{namespace}/{pod}")));
        pods.extend(kubernetes("sandbox-uid", "io.kubernetes.pod.uid").cloned());
    }
    if let Some(container) = container {
        let within: Vec<String> = pods.iter().map(|pod| format!("{pod}/{container}")).collect();
        names.extend(within);
    }
    (names, pods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kubernetes_and_nerdctl_are_known() {
        let annotations = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let kubernetes = annotations(&[
            ("io.kubernetes.cri.container-name", "web"),
            ("io.kubernetes.cri.sandbox-name", "shop-7"),
            ("io.kubernetes.cri.sandbox-namespace", "prod"),
        ]);
        let (found, pods) = names(&kubernetes);
        assert_eq!(found, ["web", "shop-7/web", "prod/shop-7/web"]);
        assert_eq!(pods, ["shop-7", "prod/shop-7"]);
        // The container that holds a pod together has no name of its own.
        let (found, pods) = names(&annotations(&[("io.kubernetes.cri.sandbox-name", "shop-7")]));
        assert_eq!((found, pods), (Vec::new(), vec!["shop-7".to_owned()]));
        let (found, _) = names(&annotations(&[("nerdctl/name", "db"), ("nerdctl/namespace", "default")]));
        assert_eq!(found, ["db"]);
        assert_eq!(names(&BTreeMap::new()), (Vec::new(), Vec::new()));
    }

    #[test]
    fn folders_are_read_in_all_namespaces() {
        let directory = tempfile::tempdir().unwrap();
        let own = std::process::id();
        for (bundle, pid, config) in [
            (
                "k8s.io/aa",
                own.to_string(),
                r#"{"ociVersion":"1.1","annotations":{"io.kubernetes.cri.container-name":"web"}}"#,
            ),
            ("default/bb", "2147483646".to_owned(), "{}"),
            ("moby/cc", "x".to_owned(), "no json"),
        ] {
            let bundle = directory.path().join(bundle);
            fs::create_dir_all(&bundle).unwrap();
            fs::write(bundle.join("init.pid"), pid).unwrap();
            fs::write(bundle.join("config.json"), config).unwrap();
        }
        let mut found = of(directory.path(), &[], &BTreeMap::new());
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let seen: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.names[0].as_str(), one.pid)).collect();
        assert_eq!(seen, [("aa", "web", Some(own.cast_signed())), ("bb", "default/bb", None), ("cc", "moby/cc", None)]);
    }

    #[test]
    fn a_container_in_a_vm_is_its_shim_with_the_vmm() {
        let process = |pid: i32, parent: i32, line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let executable = arguments.first().map(Into::into);
            (pid, Process { pid, parent, arguments, executable, ..Process::default() })
        };
        let all: BTreeMap<i32, Process> = [
            process(2, 1, "/usr/bin/containerd-shim-kata-v2 -namespace k8s.io -id aa"),
            process(3, 2, "/usr/bin/qemu-system-x86_64 -name sandbox-aa"),
            process(4, 1, "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id bb"),
            process(5, 4, "/pause"),
        ]
        .into();
        let shims: Vec<&Process> = [2, 4].iter().map(|pid| &all[pid]).collect();
        assert_eq!(beside_shim("aa", &shims, &all), Some(2));
        assert_eq!(beside_shim("bb", &shims, &all), None);
        assert_eq!(beside_shim("cc", &shims, &all), None);
    }
}
