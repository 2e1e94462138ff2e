//! A run as the rules see it: its instances in groups of the same kind, and where the time of a group went.

use super::path::Path;
use crate::{
    record::{Row, tables},
    results::{Error, Kind, Of, Rows, Run},
};
use std::{
    collections::{BTreeMap, HashSet},
    ops::Deref,
    rc::Rc,
};

/// A run to be examined.
pub struct Case<'a> {
    run: &'a Run,
    about: tables::Run,
    groups: Vec<Group>,
}

impl<'a> Case<'a> {
    /// Reads the run's instances.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn of(run: &'a Run) -> Result<Self, Error> {
        // None in a run that was killed before it started one.
        let instances = run.observed::<tables::Instance>()?.map_or_else(Vec::new, |table| table.rows.clone());
        let mut groups: BTreeMap<Kind, Vec<Of<tables::Instance>>> = BTreeMap::new();
        for instance in instances {
            groups.entry(Kind::of(&instance)).or_default().push(instance);
        }
        let groups = groups.into_iter().map(|(kind, instances)| Group { kind, instances });
        Ok(Self { run, about: run.row()?, groups: groups.collect() })
    }

    /// The run.
    pub fn run(&self) -> &Run {
        self.run
    }

    /// The row about the run.
    pub fn about(&self) -> &tables::Run {
        &self.about
    }

    /// A condition of the run, as its manifest has it.
    pub fn condition(&self, name: &str) -> Option<String> {
        let manifest: serde_json::Value = serde_json::from_str(&self.about.manifest_json).ok()?;
        Some(manifest["conditions"].get(name)?.as_str()?.to_owned())
    }

    /// Its instances, by sandbox and workload.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The rows of a table.
    ///
    /// # Errors
    /// See [`Run::table`].
    pub fn table<R: Row>(&self) -> Result<Rc<Rows<R>>, Error> {
        self.run.table()
    }

    /// The critical path of a group's explained starts; `None` if none is explained.
    ///
    /// # Errors
    /// When the run has no table `attribution`, it is of an account of another kind, or can't be read.
    pub fn path(&self, group: &Group) -> Result<Option<Path>, Error> {
        self.check_path()?;
        Path::of(self, group)
    }

    /// Fails for a run whose account is no critical path.
    pub(super) fn check_path(&self) -> Result<(), Error> {
        if self.run.has_critical_path()? {
            return Ok(());
        }
        Err(Error::NoPath { run: self.run.id().to_owned(), version: self.about.schema_version })
    }

    /// Whether the run has starts of its own to be explained, and is not about something else that begins with one.
    pub fn is_about_starts(&self) -> bool {
        self.groups.iter().any(Group::is_about_starts)
    }
}

/// Instances of the same kind.
pub struct Group {
    /// What they have in common.
    pub kind: Kind,
    /// In the order in which they ended.
    pub instances: Vec<Of<tables::Instance>>,
}

impl Deref for Group {
    type Target = Kind;

    fn deref(&self) -> &Kind {
        &self.kind
    }
}

impl Group {
    /// What a finding about all of them is about.
    pub fn subject(&self) -> String {
        self.kind.to_string()
    }

    /// Whether they were started to see how long that takes.
    pub fn is_about_starts(&self) -> bool {
        ["cold-start", "burst"].contains(&self.kind.experiment.as_str())
    }

    /// Those that are explained: good ones with probes.
    pub fn explained(&self) -> HashSet<&str> {
        self.good(true).map(|instance| instance.instance_id.as_str()).collect()
    }

    /// Wall times of the good ones with, or without, probes.
    pub fn walls(&self, probes: bool) -> Vec<f64> {
        self.good(probes).filter_map(|instance| Some(instance.wall_ns? as f64)).collect()
    }

    fn good(&self, probes: bool) -> impl Iterator<Item = &Of<tables::Instance>> {
        self.instances.iter().filter(move |instance| instance.ok && instance.probes == probes)
    }
}
