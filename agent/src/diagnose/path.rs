//! The critical path of a group's starts, added up: what rules about starts look at.

use super::{Case, Evidence, Group, Quantity};
use crate::{
    record::tables,
    report::units::duration,
    results::{Error, PathElement},
};
use std::collections::{BTreeMap, BTreeSet};

/// The critical paths of the explained starts of a group.
pub struct Path {
    /// How many starts.
    pub starts: usize,
    /// Mean time from launch to response.
    pub mean_ns: f64,
    /// What it consists of, largest first.
    pub parts: Vec<Part>,
    /// What starts would save without a category altogether, on average.
    without: BTreeMap<String, f64>,
}

/// A part of the paths.
pub struct Part {
    /// What the time was spent on.
    pub element: PathElement,
    /// Mean per start.
    pub mean_ns: f64,
    /// Of the mean start.
    pub ratio: f64,
    /// What a start would save without it, on average; `None` where it is too small for a prediction.
    pub saves_ns: Option<f64>,
}

/// Some of the parts together.
pub struct Share<'a> {
    /// Of the mean start.
    pub ratio: f64,
    /// Mean per start.
    pub mean_ns: f64,
    /// The parts, largest first.
    pub parts: Vec<&'a Part>,
}

impl Path {
    /// Of the explained starts of a group; `None` if none is explained.
    ///
    /// # Errors
    /// When the run has no table `attribution`, or it can't be read.
    pub fn of(case: &Case, group: &Group) -> Result<Option<Self>, Error> {
        let explained = group.explained();
        let (mut whole_ns, mut sums) = (0, BTreeMap::<PathElement, u64>::new());
        for row in &case.table::<tables::Attribution>()?.rows {
            if explained.contains(row.instance_id.as_str()) && row.time_ns > 0 {
                whole_ns += row.time_ns;
                *sums.entry(PathElement::of(row)).or_default() += row.time_ns;
            }
        }
        if whole_ns == 0 {
            return Ok(None);
        }
        let (mut saves, mut without) = (BTreeMap::<PathElement, u64>::new(), BTreeMap::<String, u64>::new());
        // Results of version 1 predict nothing.
        for row in case.run().observed::<tables::Saving>()?.iter().flat_map(|table| &table.rows) {
            if !explained.contains(row.instance_id.as_str()) {
                continue;
            }
            match row.role {
                Some(_) => *saves.entry(PathElement::of_saving(row)).or_default() += row.saves_ns,
                None => *without.entry(row.category.clone()).or_default() += row.saves_ns,
            }
        }
        let starts = explained.len();
        let mean = |sum: u64| sum as f64 / starts as f64;
        let part = |(element, time_ns): (PathElement, u64)| {
            let saves_ns = saves.get(&element.removable()).copied().map(mean);
            Part { mean_ns: mean(time_ns), ratio: time_ns as f64 / whole_ns as f64, saves_ns, element }
        };
        let mut parts: Vec<Part> = sums.into_iter().map(part).collect();
        parts.sort_by(|one, other| other.mean_ns.total_cmp(&one.mean_ns));
        let without = without.into_iter().map(|(category, sum)| (category, mean(sum))).collect();
        Ok(Some(Self { starts, mean_ns: mean(whole_ns), parts, without }))
    }

    /// Those parts that are wanted.
    pub fn share(&self, wanted: impl Fn(&PathElement) -> bool) -> Share<'_> {
        let parts: Vec<&Part> = self.parts.iter().filter(|part| wanted(&part.element)).collect();
        let mean_ns = parts.iter().map(|part| part.mean_ns).sum();
        Share { ratio: mean_ns / self.mean_ns, mean_ns, parts }
    }

    /// All of a category.
    pub fn category(&self, category: &str) -> Share<'_> {
        self.share(|element| element.category == category)
    }

    /// The categories that are there.
    pub fn categories(&self) -> BTreeSet<&str> {
        self.parts.iter().map(|part| part.element.category.as_str()).collect()
    }

    /// What a start would save without a category altogether, on average; `None` where that is not predicted.
    pub fn saves_without(&self, category: &str) -> Option<f64> {
        self.without.get(category).copied()
    }

    /// The same in words, as the end of a sentence; nothing where it is not predicted.
    pub fn without(&self, category: &str) -> String {
        self.saves_without(category)
            .map_or_else(String::new, |saves_ns| format!("; without that it would take {} less", duration(saves_ns)))
    }
}

impl Share<'_> {
    /// Parts that are shown at most.
    const SHOWN: usize = 4;
    /// Part of the share that each has to be, unless it is the largest.
    const WORTH: f64 = 0.05;

    /// The largest parts in words, with their times.
    pub fn words(&self) -> String {
        self.list(PathElement::words)
    }

    /// The same where the category is known: who and where.
    pub fn places(&self) -> String {
        self.list(PathElement::place)
    }

    fn list(&self, words: impl Fn(&PathElement) -> String) -> String {
        let shown: Vec<_> =
            self.shown().map(|part| format!("{} {}", words(&part.element), duration(part.mean_ns))).collect();
        let more = self.parts.len() - shown.len();
        match more {
            0 => shown.join(", "),
            _ => format!("{} and {more} more", shown.join(", ")),
        }
    }

    fn shown(&self) -> impl Iterator<Item = &Part> {
        let first = self.parts.iter().take(1);
        let next =
            self.parts.iter().take(Self::SHOWN).skip(1).filter(|part| part.mean_ns >= Self::WORTH * self.mean_ns);
        first.chain(next).copied()
    }

    /// The largest parts as evidence, which are rows of this table.
    pub fn evidence(&self, table: &'static str) -> Vec<Evidence> {
        let row = |part: &Part| Evidence::new(table, part.element.key(), Quantity::Ns(part.mean_ns));
        self.shown().map(row).collect()
    }
}
