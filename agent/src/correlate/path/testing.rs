//! A critical path in words, for tests.

use super::{Category, Element, Graph, Saving};
use crate::{
    correlate::{Names, Text, Texts, testing::histories},
    probe::Record,
};

/// The critical path to what a thread does at the end, in words, with what parts of it would save.
pub struct Account {
    pub elements: Vec<(Element, String, String)>,
    savings: Vec<Saving>,
    texts: Texts,
    start_ns: u64,
    end_ns: u64,
}

impl Account {
    /// Of written-down records.
    pub fn of(records: &[Record], tid: u32, start_ns: u64, end_ns: u64) -> Self {
        let histories = histories(records);
        let names = Names::default();
        let graph = Graph::of(&histories, records, &names, start_ns, end_ns);
        let path = graph.path(tid);
        let savings = graph.savings(tid, &path);
        let texts = histories.texts.clone();
        let word = |text: Option<Text>| text.map_or(String::new(), |text| texts.get(text).to_owned());
        let elements = path
            .into_iter()
            .map(|element| {
                let detail = element.charge.detail_text(&texts, &names).unwrap_or_default();
                (element, word(element.charge.role), detail)
            })
            .collect();
        let account = Self { elements, savings, texts, start_ns, end_ns };
        account.check();
        account
    }

    /// It has no gaps, and is the whole time.
    fn check(&self) {
        let mut at_ns = self.start_ns;
        for (element, ..) in &self.elements {
            assert_eq!(element.start_ns, at_ns, "the path has no gaps");
            assert!(element.end_ns > element.start_ns, "{element:?}");
            at_ns = element.end_ns;
        }
        assert_eq!(at_ns, self.end_ns.max(self.start_ns), "the path is the whole time");
        let whole_ns = self.end_ns.saturating_sub(self.start_ns);
        assert!(self.savings.iter().all(|saving| saving.saves_ns <= whole_ns && saving.time_ns <= whole_ns));
    }

    /// Time of a category and role; the detail must begin with `detail`.
    pub fn time(&self, category: Category, role: &str, detail: &str) -> u64 {
        let is = |(element, of, more): &&(Element, String, String)| {
            element.charge.category == category && of == role && more.starts_with(detail)
        };
        self.elements.iter().filter(is).map(|(element, ..)| element.time_ns()).sum()
    }

    /// What is saved without this category altogether.
    pub fn saves(&self, category: Category) -> u64 {
        let all = self.savings.iter().find(|saving| saving.charge.category == category && saving.charge.role.is_none());
        all.map_or(0, |saving| saving.saves_ns)
    }

    /// What the calls of a category are about.
    pub fn object(&self, category: Category) -> Option<&str> {
        let object = |(element, ..): &(Element, String, String)| element.charge.within.and_then(|within| within.object);
        let mut of = self.elements.iter().filter(|(element, ..)| element.charge.category == category);
        of.find_map(object).map(|object| self.texts.get(object))
    }
}

/// Time that nothing explains.
pub fn unexplained(account: &Account) -> u64 {
    let not = |(element, ..): &&(Element, String, String)| element.charge.category == Category::Unattributed;
    account.elements.iter().filter(not).map(|(element, ..)| element.time_ns()).sum()
}
