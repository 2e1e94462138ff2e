//! What is compared: numbers per instance, taken from the tables.

use crate::{
    record::{
        OfInstance,
        tables::{Attribution, Block, Exit, Fault, Instance, Phase, Sched, Step, Syscall, Wakeup},
    },
    results::{Error, Kind, Results, Run},
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Something that each instance has a number of. Of all of them less is better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// What kind of thing it tells.
    pub group: &'static str,
    /// Which one.
    pub name: String,
    /// Unit of the numbers.
    pub unit: Unit,
    /// Whether the instances have probes, where others without them have the same metric.
    pub probes: Option<bool>,
}

/// Unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// How often.
    Count,
    /// Bytes.
    Bytes,
    /// 0 or 1 per instance: a share of the instances.
    Ratio,
}

impl Metric {
    fn new(group: &'static str, name: impl Into<String>, unit: Unit) -> Self {
        Self { group, name: name.into(), unit, probes: None }
    }

    /// A time that instances without probes have as users have it, and those with probes too.
    fn time(group: &'static str, name: &str, probes: bool) -> Self {
        Self { probes: Some(probes), ..Self::new(group, name, Unit::Ns) }
    }

    /// Whether it says that something changed. What has probes does only where there is none without, of which
    /// `both_have` tells.
    pub(super) fn is_primary(&self, both_have: impl Fn(Self) -> bool) -> bool {
        match self.probes {
            Some(true) => !both_have(Self { probes: Some(false), ..self.clone() }),
            Some(false) => true,
            None => self.group == "failed",
        }
    }

    /// Whether an instance that has none has zero: it was looked at, and there was nothing.
    fn absent_is_zero(&self) -> bool {
        matches!(self.group, "time" | "work")
    }
}

/// A metric of one kind of instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) metric: Metric,
}

/// The numbers of one side of a comparison.
#[derive(Default)]
pub(super) struct Side {
    values: BTreeMap<Cell, Vec<f64>>,
    /// Explained instances of each kind.
    explained: BTreeMap<Kind, usize>,
    kinds: BTreeSet<Kind>,
}

impl Side {
    /// All numbers of some results.
    pub(super) fn of(results: &Results) -> Result<Self, Error> {
        let mut side = Self::default();
        for run in results.runs() {
            side.add(run)?;
        }
        Ok(side)
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.values.keys()
    }

    pub(super) fn has(&self, cell: &Cell) -> bool {
        self.values.contains_key(cell)
    }

    pub(super) fn has_kind(&self, cell: &Cell) -> bool {
        self.kinds.contains(&cell.kind)
    }

    /// The numbers of a metric; `None` if nobody looked.
    pub(super) fn values(&self, cell: &Cell) -> Option<Vec<f64>> {
        let explained = *self.explained.get(&cell.kind).unwrap_or(&0);
        let mut values = self.values.get(cell).cloned().unwrap_or_default();
        if cell.metric.absent_is_zero() && values.len() < explained {
            values.resize(explained, 0.0);
        }
        (!values.is_empty()).then_some(values)
    }

    /// Kinds that the other side has not, in words.
    pub(super) fn kinds_not_in<'a>(&'a self, other: &'a Self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let only = self.kinds.difference(&other.kinds);
        only.map(move |kind| format!("{kind} is in {name} alone"))
    }

    fn add(&mut self, run: &Run) -> Result<(), Error> {
        let Some(instances) = run.observed::<Instance>()? else { return Ok(()) };
        let (mut explained, mut good) = (HashMap::new(), HashMap::new());
        for instance in &instances.rows {
            let kind = Kind::of(instance);
            self.push(&kind, Metric::new("failed", "instances", Unit::Ratio), f64::from(u8::from(!instance.ok)));
            self.kinds.insert(kind.clone());
            let (true, Some(wall_ns)) = (instance.ok, instance.wall_ns) else { continue };
            self.push(&kind, Metric::time("start", "time", instance.probes), wall_ns as f64);
            good.insert(instance.instance_id.as_str(), (kind.clone(), instance.probes));
            if instance.probes {
                *self.explained.entry(kind.clone()).or_default() += 1;
                explained.insert(instance.instance_id.clone(), kind);
            }
        }
        for step in run.observed::<Step>()?.iter().flat_map(|table| &table.rows) {
            // Step 0 is the start.
            let Some((kind, probes)) = good.get(step.instance_id.as_str()).filter(|_| step.ok && step.step > 0) else {
                continue;
            };
            let time = Metric::time("step", &step.name, *probes);
            if let Some(size_bytes) = step.value_bytes {
                self.push(kind, Metric { unit: Unit::Bytes, ..time }, size_bytes as f64);
            } else if let Some(value_ns) = step.value_ns {
                self.push(kind, time, value_ns as f64);
            }
        }
        let work = |name, unit| Metric::new("work", name, unit);
        let (phase, time) =
            (|name: &str| Metric::new("phase", name, Unit::Ns), |name: &str| Metric::new("time", name, Unit::Ns));
        self.sums::<Phase, _>(run, &explained, |row| [(phase(&row.phase), row.time_ns)])?;
        if run.has_critical_path()? {
            self.sums::<Attribution, _>(run, &explained, |row| [(time(&row.category), row.time_ns)])?;
        }
        self.sums::<Exit, _>(run, &explained, |row| {
            // Other sources tell of the same exits once more.
            let count = if row.source == "kvm_exit" { row.count } else { 0 };
            [(work("KVM exits", Unit::Count), count)]
        })?;
        self.sums::<Syscall, _>(run, &explained, |row| [(work("system calls", Unit::Count), row.count)])?;
        self.sums::<Wakeup, _>(run, &explained, |row| [(work("wake-ups", Unit::Count), row.count)])?;
        self.sums::<Sched, _>(run, &explained, |row| {
            [
                (work("CPU time of all threads", Unit::Ns), row.on_cpu_ns),
                (work("context switches", Unit::Count), row.switches_count),
            ]
        })?;
        self.sums::<Fault, _>(run, &explained, |row| {
            let count = row.read_count + row.write_count + row.exec_count + row.unknown_count;
            [(work("page faults", Unit::Count), count)]
        })?;
        self.sums::<Block, _>(run, &explained, |row| {
            [(work("block requests", Unit::Count), 1), (work("block bytes", Unit::Bytes), row.size_bytes)]
        })
    }

    /// Adds the sum over its rows for each explained instance.
    fn sums<R: OfInstance, const N: usize>(
        &mut self,
        run: &Run,
        explained: &HashMap<String, Kind>,
        numbers: impl Fn(&R) -> [(Metric, u64); N],
    ) -> Result<(), Error> {
        let Some(table) = run.observed::<R>()? else { return Ok(()) };
        let mut sums: BTreeMap<(&str, Metric), u64> = BTreeMap::new();
        for row in table.rows.iter().filter(|row| explained.contains_key(&row.instance_id)) {
            for (metric, number) in numbers(row) {
                *sums.entry((&row.instance_id, metric)).or_default() += number;
            }
        }
        for ((instance_id, metric), sum) in sums {
            self.push(&explained[instance_id], metric, sum as f64);
        }
        Ok(())
    }

    fn push(&mut self, kind: &Kind, metric: Metric, value: f64) {
        let cell = Cell { kind: kind.clone(), metric };
        self.values.entry(cell).or_default().push(value);
    }
}
