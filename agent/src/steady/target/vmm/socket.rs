//! The sockets of VMMs. A path means one thing to who types it and another to a VMM in a jail, so that paths are compared by the file that
//! they lead to.

use super::{
    super::{bounded, process::Process},
    kind::Why,
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

/// Bytes of the list of the sockets of a network namespace that are looked at.
const MOST_SOCKETS: u64 = 16 << 20;
/// The flag of sockets that listen (`__SO_ACCEPTCON`).
const LISTENS: u32 = 1 << 16;

/// The paths at which a process listens, as it named them.
pub fn listening(process: &Process) -> Vec<String> {
    let descriptors = process.descriptors();
    let inodes: BTreeSet<&str> =
        descriptors.iter().filter_map(|(_, what)| what.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')).collect();
    // Its own list: a jail has a network of its own.
    let list = bounded::text(&process.file("net/unix"), MOST_SOCKETS).unwrap_or_default();
    list.lines()
        .filter_map(listener)
        .filter(|(inode, _)| inodes.contains(inode))
        .map(|(_, path)| path.to_owned())
        .collect()
}

/// Inode and path of a line of `/proc/net/unix`, if that socket listens and has a path.
fn listener(line: &str) -> Option<(&str, &str)> {
    // Num RefCount Protocol Flags Type St Inode Path; a path may have spaces.
    let mut rest = line;
    let mut words = [""; 7];
    for word in &mut words {
        let (first, behind) = rest.trim_start().split_once(' ')?;
        (*word, rest) = (first, behind);
    }
    let flags = u32::from_str_radix(words[3], 16).ok()?;
    let path = rest.trim_start();
    (flags & LISTENS != 0 && !path.is_empty()).then_some((words[6], path))
}

/// The names that a VM has by the path of one of its sockets.
pub fn names(path: &str) -> Vec<(Why, String)> {
    let whole = Path::new(path);
    let text = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
    let folder = whole.parent().and_then(Path::file_name);
    [
        (Why::Socket, Some(path.to_owned())),
        (Why::Socket, text(whole.file_name())),
        (Why::Socket, text(whole.file_stem())),
        (Why::Folder, text(folder)),
    ]
    .into_iter()
    .filter_map(|(why, name)| Some((why, name?)))
    .collect()
}

/// Whether a path of this host leads to the socket that a process knows by its own path.
pub fn is_same(wanted: &Path, process: &Process, own: &str) -> bool {
    // Links on the way have other names, and what else has another name is not touched: it may be on a file system of the guest's making.
    let Ok(wanted) = wanted.canonicalize() else { return false };
    let own = Path::new(own);
    if wanted.file_name().is_none() || wanted.file_name() != own.file_name() {
        return false;
    }
    let from = process.file(if own.is_absolute() { "root" } else { "cwd" });
    // Joined to an absolute path, a folder has no effect.
    let below: PathBuf = own.components().filter(|part| !matches!(part, Component::RootDir)).collect();
    let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    file(&wanted).is_some_and(|wanted| file(&from.join(below)) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn listeners_are_read_also_with_spaces() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/my vm/api.sock";
        assert_eq!(listener(line), Some(("4711", "/run/my vm/api.sock")));
        assert_eq!(listener("0000000000000000: 00000003 00000000 00000000 0001 03 4711 /run/a.sock"), None);
        assert_eq!(listener("0000000000000000: 00000002 00000000 00010000 0001 01 4711"), None);
        assert_eq!(listener("Num       RefCount Protocol Flags    Type St Inode Path"), None);
        assert_eq!(listener(""), None);
    }

    #[test]
    fn names_are_the_path_and_its_parts() {
        let names = names("/run/vc/vm/0123/clh-api.sock");
        let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["/run/vc/vm/0123/clh-api.sock", "clh-api.sock", "clh-api", "0123"]);
    }

    #[test]
    fn a_socket_is_the_same_by_any_path() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, link) = (directory.path().join("a.sock"), directory.path().join("link"));
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let own = Process::of(std::process::id().cast_signed()).unwrap();
        let path = socket.to_str().unwrap();
        assert!(listening(&own).contains(&path.to_owned()));
        assert!(is_same(&socket, &own, path) && is_same(&link, &own, path));
        assert!(!is_same(&directory.path().join("b.sock"), &own, path));
        let second = directory.path().join("x").join("a.sock");
        fs::create_dir(second.parent().unwrap()).unwrap();
        let _second = UnixListener::bind(&second).unwrap();
        assert!(!is_same(&second, &own, path), "another of the same name");
    }
}
