//! The page cache was not as asked for: primed files that were not in it, or evicted ones that were.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Weight},
    report::units::{counted, percent},
    results::Error,
};

/// Part of the pages that may be in the other state: something else on the host may read or evict a few.
const TOLERATED: f64 = 0.02;

pub(super) struct CacheState;

impl Rule for CacheState {
    fn name(&self) -> &'static str {
        "cache_state"
    }

    fn about(&self) -> &'static str {
        "Instances whose files were not in the page cache though primed, or were though evicted."
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for group in case.groups() {
            let resident = |instance: &crate::record::tables::Instance| {
                let pages = instance.cache_pages_count.filter(|&pages| pages > 0)?;
                Some(instance.cache_resident_pages_count? as f64 / pages as f64)
            };
            let known: Vec<_> =
                group.instances.iter().filter_map(|instance| Some((resident(instance)?, instance))).collect();
            for (state, wrong) in [("primed", 0.0), ("evicted", 1.0)] {
                let asked = || known.iter().filter(|(_, instance)| instance.cache == state);
                // How far it is from what was asked for, as a share of the pages.
                let distance = |(ratio, _): &(f64, _)| (1.0 - wrong - ratio).abs();
                let off = |known: &&(f64, _)| distance(known) > TOLERATED;
                let Some((ratio, instance)) =
                    asked().filter(off).max_by(|one, other| distance(one).total_cmp(&distance(other)))
                else {
                    continue;
                };
                let key = format!(
                    "instance_id={} cache={state} cache_resident_pages_count / cache_pages_count",
                    instance.instance_id
                );
                findings.push(Finding {
                    rule: self.name(),
                    weight: Weight::Problem,
                    subject: group.subject(),
                    text: format!(
                        "The files of {} of {} were not {state} as asked: of one, {} of the pages were in the \
                         page cache right before the launch",
                        asked().filter(off).count(),
                        counted(asked().count(), "instance"),
                        percent(*ratio)
                    ),
                    evidence: vec![Evidence::new("instances", key, Quantity::Ratio(*ratio))],
                    next_step: match state {
                        "primed" => {
                            "Free memory on the host, or limit the sandbox's (--memory): the kernel evicts what \
                                     was just read."
                        }
                        _ => {
                            "Keep the files on a file system of their own that nothing else reads; tmpfs and mapped or \
                              locked pages can't be evicted."
                        }
                    }
                    .to_owned(),
                });
            }
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::{Quantity, testing::Scene};

    #[test]
    fn evicted_files_that_are_still_there_are_told() {
        let mut scene = Scene::healthy();
        for instance in scene.instances_of("gvisor") {
            instance.cache = "evicted".to_owned();
            instance.cache_resident_pages_count = instance.cache_pages_count.map(|pages| pages / 4);
        }
        let finding = scene.only_finding("cache_state");
        assert!(finding.text.starts_with("The files of 24 of 24 instances were not evicted"), "{}", finding.text);
        assert_eq!(finding.evidence[0].value, Quantity::Ratio(0.25));
    }

    #[test]
    fn primed_files_that_are_gone_are_told_and_evicted_ones_that_are_gone_are_not() {
        let mut scene = Scene::healthy();
        for (number, instance) in scene.instances_of("gvisor").enumerate() {
            instance.cache = if number == 3 { "primed" } else { "evicted" }.to_owned();
            instance.cache_resident_pages_count = Some(0);
        }
        let finding = scene.only_finding("cache_state");
        assert!(finding.text.starts_with("The files of 1 of 1 instance were not primed"), "{}", finding.text);
    }
}
