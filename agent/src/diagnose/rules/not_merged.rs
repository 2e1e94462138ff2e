//! Equal pages that could be one, and why they are not.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic,
        pages::{NEEDS, Told, findings},
    },
    report::units::{percent, size},
    results::Error,
};
use std::collections::BTreeMap;

/// Share of the memory of the instances from which on merging is worth its cost.
const LEAST: f64 = 0.1;
/// Less in all is not worth a change.
const LEAST_BYTES: f64 = (8 << 20) as f64;

pub(super) struct NotMerged;

impl Rule for NotMerged {
    fn name(&self) -> &'static str {
        "not_merged"
    }

    fn about(&self) -> &'static str {
        "Instances of whose memory KSM could free a large part."
    }

    fn topic(&self) -> Topic {
        Topic::Pages
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        findings(self, case, |instances| {
            let (mut all, mut freeable, mut by_reason) = (0, 0, BTreeMap::<&str, u64>::new());
            for row in instances.iter().flatten().filter(|row| row.pages_count > 0) {
                let page_bytes = row.size_bytes / row.pages_count;
                all += row.size_bytes;
                freeable += row.freeable_pages_count * page_bytes;
                let reason = row.reason.as_deref().unwrap_or("none");
                *by_reason.entry(reason).or_default() += row.freeable_pages_count * page_bytes;
            }
            let ratio = freeable as f64 / all.max(1) as f64;
            let (reason, _) = by_reason.iter().max_by_key(|(_, bytes)| **bytes)?;
            if ratio < LEAST || (freeable as f64) < LEAST_BYTES {
                return None;
            }
            let reasons = by_reason.iter().filter(|(_, bytes)| **bytes > 0);
            Some(Told {
                text: format!(
                    "{} of {} ({}) could be freed if equal pages were one",
                    size(freeable as f64),
                    size(all as f64),
                    percent(ratio)
                ),
                evidence: reasons
                    .map(|(reason, bytes)| {
                        let key = format!("reason={reason} freeable_pages_count as bytes");
                        Evidence::new("pages", key, Quantity::Bytes(*bytes as f64))
                    })
                    .collect(),
                next_step: match *reason {
                    "huge_page" => {
                        "Huge pages have to be split before they can be merged: weigh the memory against the faster \
                         translation, or turn them off for the guests (madvise, THP setting)."
                    }
                    "not_yet_merged" => {
                        "KSM was asked but is off or slow: turn it on, or raise pages_to_scan; `sandscope run memory --pages \
                         --ksm` shows how far it gets."
                    }
                    _ => {
                        "Nobody asked the kernel to merge these pages: start the VMM with memory merging on, or with \
                         PR_SET_MEMORY_MERGE; `sandscope run memory --pages --ksm` shows what it gives and costs. Merged pages \
                         let one guest learn what another has in memory."
                    }
                }
                .to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, page};

    #[test]
    fn equal_pages_that_nobody_asked_to_merge_are_told() {
        let mut scene = Scene::healthy();
        for id in scene.probed("gvisor") {
            let mut row = page("same_across", "could", Some("not_mergeable"), 1000);
            row.freeable_pages_count = 900;
            scene.pages.push((id.clone(), row));
            scene.pages.push((id, page("unique", "could_not", Some("unique"), 3000)));
        }
        let finding = scene.only_finding("not_merged");
        assert!(finding.text.starts_with("42.2 MiB of 187.5 MiB (22.5 %) could be freed"), "{}", finding.text);
        assert!(finding.next_step.starts_with("Nobody asked"), "{}", finding.next_step);
    }

    #[test]
    fn what_can_not_be_freed_is_not_told() {
        let mut scene = Scene::healthy();
        for id in scene.probed("gvisor") {
            scene.pages.push((id, page("unique", "could_not", Some("unique"), 3000)));
        }
        assert!(scene.diagnose().findings.is_empty());
    }
}
