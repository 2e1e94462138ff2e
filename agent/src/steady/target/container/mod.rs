//! Containers that run on this host, of any engine. Each engine keeps books of its own; all are asked, and none needs to be there.

mod conmon;
mod containerd;
mod docker;
mod group;
mod podman;
mod runtime;

use super::process::Process;
use crate::{printable::printable, steady::Members};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// Hexadecimal digits that make an id: what engines print of it.
const SHORT_ID: usize = 12;
/// Hexadecimal digits from which on the beginning of an id is taken for it.
const SHORTEST_PREFIX: usize = 4;
/// Containers that an error lists.
const MOST_LISTED: usize = 20;
/// Entries of a folder of state that are looked at. A host has some hundred containers.
const MOST_ENTRIES: usize = 10_000;
/// Bytes of a file of state that are looked at.
const MOST_STATE: u64 = 16 << 20;

/// A container that an engine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Who has it.
    pub engine: &'static str,
    /// Its id.
    pub id: String,
    /// What it is called, besides.
    pub names: Vec<String>,
    /// The names of the pod that it is part of. Who looks for one of them means all that are part of it.
    pub pods: Vec<String>,
    /// Its first process; `None` when it does not run.
    pub pid: Option<i32>,
}

/// What an engine has, and where that was looked up.
pub struct Looked {
    pub place: String,
    pub containers: Vec<Container>,
}

/// How well a container matches. What comes first counts more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    Whole,
    Pod,
    Beginning,
}

impl Container {
    fn answers_to(&self, wanted: &str) -> Option<Match> {
        let is = |name: &String| name == wanted;
        if self.id == wanted || self.names.iter().any(is) {
            return Some(Match::Whole);
        }
        if self.pods.iter().any(is) {
            return Some(Match::Pod);
        }
        let is_beginning = wanted.len() >= SHORTEST_PREFIX && is_hexadecimal(wanted) && self.id.starts_with(wanted);
        (is_beginning && is_id(&self.id)).then_some(Match::Beginning)
    }

    fn shown(&self) -> String {
        let pid = self.pid.map_or_else(|| "does not run".to_owned(), |pid| format!("pid:{pid}"));
        let name = self.names.first().map_or_else(String::new, |name| format!(" {}", printable(name)));
        format!("{}{name} {} ({pid})", self.engine, printable(&self.id))
    }
}

/// Whether this may be the id of a container, or the beginning of one that engines show.
pub fn is_id(text: &str) -> bool {
    text.len() >= SHORT_ID && is_hexadecimal(text)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The processes of the container that has this name or id.
///
/// # Errors
/// When no engine has it, it does not run, or several have it; says which, and where was looked.
pub async fn find(wanted: &str) -> Result<Members> {
    let all = Process::all();
    let mut looked = vec![docker::look(wanted).await];
    looked.extend([conmon::look(&all), podman::look(), containerd::look(&all), runtime::look()]);
    let places: Vec<&str> = looked.iter().map(|looked| looked.place.as_str()).collect();
    let containers: Vec<&Container> = looked.iter().flat_map(|looked| &looked.containers).collect();
    let matches: Vec<(Match, &Container)> =
        containers.iter().filter_map(|container| Some((container.answers_to(wanted)?, *container))).collect();
    let best = matches.iter().map(|(how, _)| *how).min();
    let best: Vec<&Container> =
        matches.iter().filter(|(how, _)| Some(*how) == best).map(|(_, container)| *container).collect();
    let members = chosen(wanted, &best)?;
    if let Some(members) = members {
        return Ok(members);
    }
    let groups = group::named(wanted);
    if !groups.is_empty() {
        return Ok(Members { roots: BTreeSet::new(), groups });
    }
    bail!("no container {wanted:?} on this host. Looked at {}; {}", places.join("; "), group::place(wanted))
}

/// The processes of those that match; `None` when none does.
fn chosen(wanted: &str, best: &[&Container]) -> Result<Option<Members>> {
    // Several engines have the same one: Docker's are those of its containerd, and have been made by runc.
    let mut running: BTreeMap<i32, &Container> = BTreeMap::new();
    for container in best {
        if let Some(pid) = container.pid {
            running.entry(pid).or_insert(container);
        }
    }
    let pods: BTreeSet<Option<&String>> = running.values().map(|container| container.pods.last()).collect();
    let is_pod = running.values().all(|container| container.pods.iter().any(|pod| pod == wanted)) && pods.len() == 1;
    match running.len() {
        0 => match best.first() {
            Some(container) => bail!("the container {wanted:?} of {} does not run: start it first", container.engine),
            None => Ok(None),
        },
        1 => Ok(Some(members(running.values().copied()))),
        _ if is_pod => Ok(Some(members(running.values().copied()))),
        count => {
            let shown: Vec<String> = running.values().take(MOST_LISTED).map(|container| container.shown()).collect();
            bail!(
                "{count} containers match {wanted:?}: {}; attach to one by its whole id, or by pid:NUMBER",
                shown.join(", ")
            )
        }
    }
}

fn members<'a>(containers: impl Iterator<Item = &'a Container>) -> Members {
    let mut members = Members::default();
    for container in containers {
        members.roots.extend(container.pid);
        // Runtimes with a process beside the container's own (a gofer, a VMM) keep them in its control groups, and what is executed
        // in it later is in these, but descends from others.
        members.groups.extend(group::of(container));
    }
    members.groups.sort();
    members.groups.dedup();
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn container(engine: &'static str, id: &str, name: &str, pid: i32) -> Container {
        Container { engine, id: id.to_owned(), names: vec![name.to_owned()], pid: Some(pid), ..Container::default() }
    }

    #[test]
    fn names_ids_and_beginnings_of_ids_match_in_this_order() {
        let web = container("Docker", ID, "web", 7);
        assert_eq!(web.answers_to("web"), Some(Match::Whole));
        assert_eq!(web.answers_to(ID), Some(Match::Whole));
        assert_eq!(web.answers_to("0123456789ab"), Some(Match::Beginning));
        for stranger in ["we", "webx", "", "012", "123456789abc", "0123456789AB"] {
            assert_eq!(web.answers_to(stranger), None, "{stranger}");
        }
        assert_eq!(container("containerd", "abcd-web", "x", 7).answers_to("abcd"), None, "no hexadecimal id");
        let part = Container { pods: vec!["shop".into()], ..web };
        assert_eq!(part.answers_to("shop"), Some(Match::Pod));
    }

    #[test]
    fn one_container_of_several_engines_is_one_and_others_are_listed() {
        let (docker, runc) = (container("Docker", ID, "web", 7), container("runc", ID, ID, 7));
        assert_eq!(chosen("web", &[&docker, &runc]).unwrap().unwrap().roots, [7].into());
        let podman = container("Podman", "feed", "web", 8);
        let error = chosen("web", &[&docker, &podman]).unwrap_err().to_string();
        assert!(error.contains("2 containers match") && error.contains("pid:8"), "{error}");
        let stopped = Container { pid: None, ..podman };
        assert_eq!(chosen("web", &[&docker, &stopped]).unwrap().unwrap().roots, [7].into());
        assert!(chosen("web", &[&stopped]).unwrap_err().to_string().contains("does not run"));
        assert_eq!(chosen("web", &[]).unwrap(), None);
    }

    #[test]
    fn a_pod_is_all_its_containers_and_two_pods_are_not_one() {
        let part = |pid: i32, pods: &[&str]| Container {
            pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
            ..container("containerd", &format!("{ID}{pid}"), "c", pid)
        };
        let (one, two) = (part(7, &["shop", "a/shop"]), part(8, &["shop", "a/shop"]));
        assert_eq!(chosen("shop", &[&one, &two]).unwrap().unwrap().roots, [7, 8].into());
        assert!(chosen("shop", &[&one, &part(9, &["shop", "b/shop"])]).is_err());
        assert!(chosen("c", &[&one, &two]).is_err());
    }
}
