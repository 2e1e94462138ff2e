//! The pages of the instances of each group, for the rules about what is in memory.

use super::{Case, Evidence, Finding, Group, Rule, Weight};
use crate::{
    record::tables::{Page, PageScan},
    results::Error,
};

/// Tables that the rules about pages need.
pub const NEEDS: &[&str] = &["pages"];
/// Tables that the rules about how pages were looked at need.
pub const NEEDS_SCANS: &[&str] = &["page_scans"];

/// What a rule has to say of a group.
pub struct Told {
    /// In plain words.
    pub text: String,
    /// The rows that show it.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub next_step: String,
}

/// A finding for each group of which the rule has something to say. It is given the pages of each of the group's instances, as they
/// were before KSM was asked to merge any.
///
/// # Errors
/// When the table can't be read.
pub fn findings(
    rule: &impl Rule,
    case: &Case,
    tell: impl Fn(&[Vec<&Page>]) -> Option<Told>,
) -> Result<Vec<Finding>, Error> {
    let pages = case.table::<Page>()?;
    let finding = |group: &Group| {
        let of = group.instances.iter().map(|instance| pages.of(&instance.instance_id));
        let instances: Vec<_> = of.map(|pages| pages.filter(|row| !row.merged).collect()).collect();
        let Told { text, evidence, next_step } = tell(&instances)?;
        let (rule, weight) = (rule.name(), Weight::Insight);
        Some(Finding { rule, weight, subject: group.subject(), text, evidence, next_step })
    };
    Ok(case.groups().iter().filter_map(finding).collect())
}

/// A finding for each look at pages of which the rule has something to say, before KSM was asked to merge any. It is told in this
/// weight.
///
/// # Errors
/// When the table can't be read.
pub fn findings_of_scans(
    rule: &impl Rule,
    case: &Case,
    weight: Weight,
    tell: impl Fn(&PageScan) -> Option<Told>,
) -> Result<Vec<Finding>, Error> {
    let scans = case.table::<PageScan>()?;
    let mut found = Vec::new();
    for group in case.groups() {
        let rows = group.instances.iter().flat_map(|instance| scans.of(&instance.instance_id));
        let told = rows.filter(|row| !row.merged).filter_map(&tell);
        found.extend(told.map(|Told { text, evidence, next_step }| {
            let rule = rule.name();
            Finding { rule, weight, subject: group.subject(), text, evidence, next_step }
        }));
    }
    Ok(found)
}
