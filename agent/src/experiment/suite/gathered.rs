//! How far each cell has come, and whether its medians are sure enough.

use super::{CellKey, Repeat};
use crate::{
    experiment::{
        observation::Observation,
        statistics::{median, median_interval},
        step::Figure,
        step_rows::START,
    },
    record::tables::Step,
};
use std::collections::{BTreeMap, BTreeSet};

/// A value of a step of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// The instance.
    pub instance: String,
    /// Its repetition; the instances of a burst have the same.
    pub repetition: u32,
    /// Position of the step.
    pub step: u32,
    /// Its value; `None`: there was no good answer.
    pub value: Option<Figure>,
    /// How its requests were answered.
    pub answers: Answers,
}

/// How requests were answered, and whether that is as it should be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// With status 200.
    pub good: u64,
    /// Otherwise, not at all, or never sent though due.
    pub bad: u64,
    /// Whether the step failed: one of them is bad, or it could not be done. It may have a value nevertheless.
    pub failed: bool,
}

impl Answers {
    /// Of a step that was not done at all.
    pub(super) const NONE: Self = Self { good: 0, bad: 0, failed: true };

    pub(super) fn of(step: &Step) -> Self {
        Self { good: step.good_count, bad: step.bad_count + step.unsent_count, failed: !step.ok }
    }
}

/// What is known of a cell.
#[derive(Debug, Default, PartialEq)]
pub struct Gathered {
    repetitions: BTreeSet<u32>,
    steps: BTreeMap<String, Vec<Value>>,
}

/// What is known of all cells.
pub(super) type AllGathered = BTreeMap<CellKey, Gathered>;

impl Gathered {
    /// Adds the steps of an instance.
    pub(super) fn add(&mut self, observation: &Observation, steps: &[Step]) {
        self.repetitions.insert(observation.part.repetition);
        for step in steps {
            self.add_step(
                &observation.id,
                observation.part.repetition,
                step.step,
                &step.name,
                figure(step),
                Answers::of(step),
            );
        }
        if steps.is_empty() {
            // It was never launched.
            self.add_step(&observation.id, observation.part.repetition, 0, START, None, Answers::NONE);
        }
    }

    /// Adds a step of an instance that an earlier run of the same plan has done.
    pub(super) fn add_step(
        &mut self,
        instance: &str,
        repetition: u32,
        step: u32,
        name: &str,
        value: Option<Figure>,
        answers: Answers,
    ) {
        self.repetitions.insert(repetition);
        let value = Value { instance: instance.to_owned(), repetition, step, value, answers };
        self.steps.entry(name.to_owned()).or_default().push(value);
    }

    /// How often it was repeated.
    pub fn repetitions(&self) -> u32 {
        self.repetitions.len() as u32
    }

    /// The number of the next repetition.
    pub(super) fn next(&self) -> u32 {
        self.repetitions.last().map_or(0, |last| last + 1)
    }

    /// Its steps by name, with all their values.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&str, &[Value])> {
        self.steps.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Whether it needs no more repetitions.
    pub(super) fn is_finished(&self, repeat: Repeat, seed: u64) -> bool {
        let done = self.repetitions();
        done >= repeat.most || (done >= repeat.least && self.is_sure(repeat.width_ratio, seed))
    }

    /// Whether the interval of every step's median is narrow enough. The start counts only where there is nothing else.
    fn is_sure(&self, width_ratio: f64, seed: u64) -> bool {
        let only_start = self.steps.keys().all(|name| name == START);
        let judged = self.steps.iter().filter(|(name, _)| only_start || *name != START);
        judged.map(|(_, values)| per_repetition(values)).all(|values| {
            // More of what never works does not make it surer.
            values.is_empty()
                || median_interval(&values, seed)
                    .is_some_and(|found| found.high - found.low <= width_ratio * found.median)
        })
    }
}

/// What stands for a step, by its row.
pub(super) fn figure(step: &Step) -> Option<Figure> {
    step.value_ns.map(Figure::Ns).or(step.value_bytes.map(Figure::Bytes))
}

/// One value per repetition: of a burst the median of its instances, which are not independent of each other.
pub(super) fn per_repetition(values: &[Value]) -> Vec<f64> {
    let mut grouped: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for value in values {
        if let Some(figure) = value.value {
            grouped.entry(value.repetition).or_default().push(figure.number() as f64);
        }
    }
    grouped.values().filter_map(|values| median(values)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(values: &[u64]) -> Gathered {
        let mut gathered = Gathered::default();
        for (repetition, &value_ns) in (0..).zip(values) {
            gathered.add_step(
                &format!("i{repetition}"),
                repetition,
                0,
                START,
                Some(Figure::Ns(value_ns)),
                Answers::default(),
            );
        }
        gathered
    }

    #[test]
    fn a_cell_is_repeated_until_it_is_sure_and_at_most_so_often() {
        let repeat = Repeat { least: 3, most: 6, width_ratio: 0.1 };
        assert!(!gathered(&[100, 100]).is_finished(repeat, 1), "fewer than the least");
        assert!(gathered(&[100, 101, 100]).is_finished(repeat, 1), "the values agree");
        assert!(!gathered(&[100, 200, 300, 100, 300]).is_finished(repeat, 1), "they do not");
        assert!(gathered(&[100, 200, 300, 100, 300, 200]).is_finished(repeat, 1), "there is no more");
    }

    #[test]
    fn the_start_does_not_count_where_there_are_steps() {
        let repeat = Repeat { least: 3, most: 100, width_ratio: 0.1 };
        let mut noisy = gathered(&[100, 900, 500]);
        assert!(!noisy.is_finished(repeat, 1));
        for repetition in 0..3 {
            noisy.add_step("i", repetition, 1, "fft", Some(Figure::Ns(70)), Answers::default());
        }
        assert!(noisy.is_finished(repeat, 1));
    }

    #[test]
    fn what_always_fails_is_not_repeated_for_ever() {
        let mut failing = Gathered::default();
        for repetition in 0..3 {
            failing.add_step("i", repetition, 0, START, None, Answers::NONE);
        }
        assert!(failing.is_finished(Repeat { least: 3, most: 100, width_ratio: 0.1 }, 1));
    }

    #[test]
    fn instances_of_a_burst_are_one_repetition() {
        let mut burst = Gathered::default();
        for (instance, value_ns) in [("a", 10), ("b", 20), ("c", 90)] {
            burst.add_step(instance, 0, 0, START, Some(Figure::Ns(value_ns)), Answers::default());
        }
        assert_eq!((burst.repetitions(), burst.next()), (1, 1));
        assert_eq!(per_repetition(burst.steps().next().unwrap().1), [20.0]);
    }
}
