//! Podman's own books, for containers whose conmon was killed: the list of names that it keeps for root and for this user.

use super::{super::bounded, Container, Looked, MOST_ENTRIES, MOST_STATE};
use crate::steady::members::threads_of;
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where root's are: what stays, and what is gone after a restart of the host.
const OF_ROOT: (&str, &str) = ("/var/lib/containers/storage", "/run/containers/storage");
/// Bytes of a file with a number.
const MOST_NUMBER: u64 = 32;

/// A line of `containers.json`.
#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// The containers of root and of this user.
pub fn look() -> Looked {
    let stores = stores();
    let containers: Vec<Container> = stores.iter().flat_map(|(lasting, passing)| of(lasting, passing)).collect();
    let places: Vec<String> = stores.iter().map(|(lasting, _)| lasting.display().to_string()).collect();
    Looked { place: format!("Podman in {}", places.join(", ")), containers }
}

fn stores() -> Vec<(PathBuf, PathBuf)> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = variable("HOME").map(|home| home.join(".local/share/containers/storage"));
    let user = rustix::process::getuid().as_raw();
    let passing = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/user/{user}")));
    let own = home.map(|home| (home, passing.join("containers")));
    own.into_iter().chain([(OF_ROOT.0.into(), OF_ROOT.1.into())]).collect()
}

/// Those of a store. Each way to store layers has a list of its own: `overlay-containers`, `vfs-containers`.
fn of(lasting: &Path, passing: &Path) -> Vec<Container> {
    let folders = fs::read_dir(lasting).into_iter().flatten().flatten().take(MOST_ENTRIES);
    let lists = folders.filter_map(|folder| folder.file_name().into_string().ok());
    let lists = lists.filter(|name| name.ends_with("-containers"));
    let read = lists.flat_map(|list| {
        let entries: Vec<Entry> =
            bounded::json(&lasting.join(&list).join("containers.json"), MOST_STATE).unwrap_or_default();
        let folder = passing.join(list);
        entries.into_iter().map(move |entry| container(entry, &folder))
    });
    read.collect()
}

fn container(entry: Entry, folder: &Path) -> Container {
    let is_one_name = !entry.id.contains('/');
    let file = folder.join(&entry.id).join("userdata/pidfile");
    let written = is_one_name.then(|| bounded::text(&file, MOST_NUMBER)).flatten();
    let pid = written.and_then(|text| text.trim().parse::<u32>().ok()).filter(|&pid| !threads_of(pid).is_empty());
    let pid = pid.map(u32::cast_signed);
    Container { engine: "Podman", id: entry.id, names: entry.names, pods: Vec::new(), pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_are_read_whatever_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let (lasting, passing) = (directory.path().join("l"), directory.path().join("p"));
        let list = lasting.join("vfs-containers");
        fs::create_dir_all(&list).unwrap();
        fs::create_dir_all(passing.join("vfs-containers/ab12/userdata")).unwrap();
        fs::create_dir_all(passing.join("vfs-containers/cd34/userdata")).unwrap();
        let own = std::process::id();
        fs::write(passing.join("vfs-containers/ab12/userdata/pidfile"), own.to_string()).unwrap();
        fs::write(passing.join("vfs-containers/cd34/userdata/pidfile"), "2147483646").unwrap();
        let books =
            r#"[{"id":"ab12","names":["web","other"],"layer":"x"},{"id":"cd34"},{"id":"../ab12","names":["evil"]}]"#;
        fs::write(list.join("containers.json"), books).unwrap();
        let found = of(&lasting, &passing);
        assert_eq!(found[0].names, ["web", "other"]);
        assert_eq!(found[0].pid, Some(own.cast_signed()));
        assert_eq!(found[1].pid, None, "has ended");
        assert_eq!(found[2].pid, None, "leads elsewhere");
        fs::write(list.join("containers.json"), "[{").unwrap();
        assert_eq!(of(&lasting, &passing), []);
        assert_eq!(of(Path::new("/no/such/store"), &passing), []);
    }
}
