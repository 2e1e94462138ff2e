//! A run as the rules see it: its instances in groups of the same kind, and where the time of a group went.

use super::{Evidence, Quantity};
use crate::{
    record::{Row, tables},
    results::{Error, Kind, Of, PathElement, Rows, Run},
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

    /// Where the time of a group's explained instances went, as far as `counts` says that it matters; `None` if none is
    /// explained.
    ///
    /// # Errors
    /// When the run has no table `attribution`, or it can't be read.
    pub fn share(&self, group: &Group, counts: impl Fn(&PathElement) -> bool) -> Result<Option<Share>, Error> {
        let attribution = self.table::<tables::Attribution>()?;
        let explained = group.explained();
        let (mut whole_ns, mut sums) = (0, BTreeMap::<PathElement, u64>::new());
        for row in attribution.rows.iter().filter(|row| explained.contains(row.instance_id.as_str())) {
            whole_ns += row.time_ns;
            let who = PathElement::of(row);
            if row.time_ns > 0 && counts(&who) {
                *sums.entry(who).or_default() += row.time_ns;
            }
        }
        if whole_ns == 0 {
            return Ok(None);
        }
        let per_instance = |time_ns: u64| time_ns as f64 / explained.len() as f64;
        let part_ns: u64 = sums.values().sum();
        let mut lines: Vec<_> = sums.into_iter().map(|(who, time_ns)| (who, per_instance(time_ns))).collect();
        lines.sort_by(|one, other| other.1.total_cmp(&one.1));
        Ok(Some(Share { ratio: part_ns as f64 / whole_ns as f64, mean_ns: per_instance(part_ns), lines }))
    }
}

/// A part of a group's time.
pub struct Share {
    /// Of the whole.
    pub ratio: f64,
    /// Mean per instance.
    pub mean_ns: f64,
    /// What it consists of, largest first, with its mean per instance.
    pub lines: Vec<(PathElement, f64)>,
}

impl Share {
    /// Lines that are worth a look.
    const SHOWN: usize = 3;

    /// Its largest lines as evidence.
    pub fn evidence(&self) -> Vec<Evidence> {
        let row = |(who, mean_ns): &(PathElement, f64)| Evidence::new("attribution", who.key(), Quantity::Ns(*mean_ns));
        self.lines.iter().take(Self::SHOWN).map(row).collect()
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
