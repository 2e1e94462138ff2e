//! The control groups of containers: whatever engine made one, and wherever its books are, its groups are named after its id.

use super::{super::process::Process, Container, SHORT_ID, is_id};
use crate::host::control_group::ControlGroup;
use std::path::Path;

/// The groups of a container: those named after its id, or, where that is no id that only it can have, those of them that its process is in.
pub fn of(container: &Container) -> Vec<ControlGroup> {
    if is_id(&container.id) {
        return ControlGroup::matching(|name| name.contains(&container.id));
    }
    let process = container.pid.and_then(Process::of);
    let groups = process.map(|process| process.groups()).unwrap_or_default();
    let named = groups.into_iter().flat_map(|(hierarchy, path)| {
        let own = up_to(&path, &container.id).map(|path| ControlGroup::named(Path::new(path))).unwrap_or_default();
        own.into_iter().filter(move |group| group.hierarchy == hierarchy)
    });
    named.collect()
}

/// The path of the group that is named after an id, of a path of that group or of one below.
fn up_to<'a>(path: &'a str, id: &str) -> Option<&'a str> {
    let is_its = |name: &str| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let before = (!id.is_empty()).then(|| name.strip_suffix(id)).flatten();
        before.is_some_and(|before| before.is_empty() || before.ends_with(['-', ':']))
    };
    let mut end = 0;
    for part in path.split('/') {
        end += part.len();
        if is_its(part) {
            return path.get(..end);
        }
        end += 1;
    }
    None
}

/// The groups whose names have this id, for containers that nobody else knows.
pub fn named(id: &str) -> Vec<ControlGroup> {
    if !is_id(id) {
        return Vec::new();
    }
    let all = ControlGroup::matching(|name| name.contains(id));
    all.into_iter().filter(|group| !group.threads().is_empty()).collect()
}

/// What was looked at, as the end of a sentence.
pub fn place(wanted: &str) -> String {
    match is_id(wanted) {
        true => "no control group with processes is named after it".to_owned(),
        false => format!("control groups only for an id of {SHORT_ID} hexadecimal digits or more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_container_is_found_above_those_within() {
        assert_eq!(up_to("/default/web", "web"), Some("/default/web"));
        assert_eq!(up_to("/default/web/init.scope", "web"), Some("/default/web"));
        assert_eq!(
            up_to("/system.slice/cri-containerd-web.scope/x", "web"),
            Some("/system.slice/cri-containerd-web.scope")
        );
        assert_eq!(up_to("/system.slice/runc:web", "web"), Some("/system.slice/runc:web"));
        for stranger in ["/", "/webmail", "/a/web2/b", "/old_web", "/system.slice"] {
            assert_eq!(up_to(stranger, "web"), None, "{stranger}");
        }
        assert_eq!(up_to("/a/b", ""), None);
    }

    #[test]
    fn only_ids_are_looked_for_among_all_groups() {
        assert!(named("").is_empty() && named("system").is_empty() && named("abc").is_empty());
        assert!(named("00000000000000000000000000000000").is_empty());
    }
}
