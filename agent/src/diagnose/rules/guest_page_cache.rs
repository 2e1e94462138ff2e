//! A guest holds in its memory what the host holds of the same file: in its own page cache, or in several copies.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic,
        pages::{NEEDS, Told, findings},
    },
    report::units::size,
    results::Error,
};

/// Less per instance is not worth a change.
const LEAST_BYTES: f64 = (1 << 20) as f64;
/// Copies per page from which on a guest holds it more than once.
const SEVERAL: f64 = 1.5;

pub(super) struct GuestPageCache;

impl Rule for GuestPageCache {
    fn name(&self) -> &'static str {
        "guest_page_cache"
    }

    fn about(&self) -> &'static str {
        "Guests whose memory equals pages of files that the host has in its page cache."
    }

    fn topic(&self) -> Topic {
        Topic::Pages
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        findings(self, case, |instances| {
            let (mut bytes, mut count, mut distinct, mut guests) = (0, 0, 0, 0);
            for pages in instances {
                let of = pages.iter().filter(|row| row.reason.as_deref() == Some("guest_page_cache"));
                guests += u64::from(of.clone().next().is_some());
                for row in of {
                    bytes += row.size_bytes;
                    count += row.pages_count;
                    distinct += row.distinct_pages_count;
                }
            }
            let mean = bytes as f64 / guests.max(1) as f64;
            if mean < LEAST_BYTES {
                return None;
            }
            let copies = count as f64 / distinct.max(1) as f64;
            let times = match copies {
                _ if copies < SEVERAL => "once".to_owned(),
                _ if copies < SEVERAL + 1.0 => "twice".to_owned(),
                _ => format!("{copies:.1} times"),
            };
            Some(Told {
                text: format!(
                    "{} of the memory of each guest equal its image or kernel page by page, {times}, though the host has these \
                     pages in its page cache",
                    size(mean)
                ),
                evidence: vec![
                    Evidence::new("pages", "reason=guest_page_cache mean of size_bytes", Quantity::Bytes(mean)),
                    Evidence::new("pages", "reason=guest_page_cache sum of distinct_pages_count", Quantity::Count(distinct)),
                ],
                next_step: if copies < SEVERAL {
                    "Let the guest map the file instead of reading it (DAX on virtio-pmem or virtio-fs), or let KSM merge \
                     the guests (--ksm shows what that gives)."
                } else {
                    "The guest keeps the program in its page cache and again in the memory of the process: look for a loader \
                     that copies instead of mapping."
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
    fn a_program_that_a_guest_holds_twice_is_told() {
        let mut scene = Scene::healthy();
        for id in scene.probed("kvm-floor") {
            let mut row = page("same_as_file", "could", Some("guest_page_cache"), 2 * 9472);
            row.distinct_pages_count = 9472;
            scene.pages.push((id, row));
        }
        let finding = scene.only_finding("guest_page_cache");
        assert!(finding.text.starts_with("74.0 MiB of the memory of each guest"), "{}", finding.text);
        assert!(finding.text.contains("page by page, twice,"), "{}", finding.text);
    }

    #[test]
    fn a_few_pages_are_not_told() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        scene.pages.push((id, page("same_as_file", "could", Some("guest_page_cache"), 100)));
        assert!(scene.diagnose().findings.is_empty());
    }
}
