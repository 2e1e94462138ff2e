//! What was recorded of one instance, and nothing of others: what rows are made of.

use super::{names::Names, reading::Histories};
use crate::probe::Record;

/// The records of one instance, sorted out by task.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// In order of time.
    pub records: &'a [Record],
    /// Made of them, and of those that came before.
    pub histories: &'a Histories,
    /// What numbers in them mean.
    pub names: &'a Names,
}
