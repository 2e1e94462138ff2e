//! Equal pages that KSM can never merge, since they are of shared memory or of hugetlbfs.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic,
        pages::{NEEDS, Told, findings},
    },
    report::units::size,
    results::Error,
};

/// Less in all is not worth a change.
const LEAST_BYTES: u64 = 8 << 20;

/// A reason why pages can't be merged, what it is called, and what to do.
const KINDS: [(&str, &str, &str); 2] = [
    (
        "shared_mapping",
        "it is shared memory",
        "KSM merges private memory only, whatever was asked of it. Give guests private memory: QEMU a memory-backend without share=on, \
         Cloud Hypervisor and Kata shared=off; vhost-user devices and virtio-fs need it shared, and rule that out. What all of them \
         only read can be one file that all map.",
    ),
    (
        "hugetlb",
        "it is of hugetlbfs",
        "KSM does not merge pages of hugetlbfs. With transparent huge pages (madvise) it can split and merge what is equal: weigh the \
         memory against the faster translation.",
    ),
];

pub(super) struct SharedMemory;

impl Rule for SharedMemory {
    fn name(&self) -> &'static str {
        "shared_memory"
    }

    fn about(&self) -> &'static str {
        "Equal pages that can't be merged, since they are of shared memory or of hugetlbfs."
    }

    fn topic(&self) -> Topic {
        Topic::Pages
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let mut found = Vec::new();
        for (reason, what, next_step) in KINDS {
            found.extend(findings(self, case, |instances| {
                let (mut bytes, mut again) = (0, 0);
                let rows = instances.iter().flatten().filter(|row| row.reason.as_deref() == Some(reason));
                for row in rows.filter(|row| row.pages_count > 0) {
                    bytes += row.size_bytes;
                    again += (row.pages_count - row.distinct_pages_count) * (row.size_bytes / row.pages_count);
                }
                if bytes < LEAST_BYTES {
                    return None;
                }
                let key = format!("state=could_not reason={reason}");
                let mut evidence =
                    vec![Evidence::new("pages", format!("{key} size_bytes"), Quantity::Bytes(bytes as f64))];
                if again > 0 {
                    let key = format!("{key} pages_count - distinct_pages_count as bytes");
                    evidence.push(Evidence::new("pages", key, Quantity::Bytes(again as f64)));
                }
                Some(Told {
                    text: format!(
                        "{} whose content is somewhere else too can't be merged because {what}{}",
                        size(bytes as f64),
                        match again {
                            0 => String::new(),
                            _ => format!("; the instances themselves hold {} of it again", size(again as f64)),
                        }
                    ),
                    evidence,
                    next_step: next_step.to_owned(),
                })
            })?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, page};

    #[test]
    fn equal_pages_of_shared_memory_are_told_with_what_to_do() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        let mut row = page("same_within", "could_not", Some("shared_mapping"), 16_384);
        row.distinct_pages_count = 8192;
        scene.pages.push((id, row));
        let finding = scene.only_finding("shared_memory");
        assert_eq!(
            finding.text,
            "64.0 MiB whose content is somewhere else too can't be merged because it is shared memory; the instances themselves \
             hold 32.0 MiB of it again"
        );
        assert!(finding.next_step.contains("without share=on"), "{}", finding.next_step);
    }

    #[test]
    fn huge_pages_of_hugetlbfs_have_advice_of_their_own() {
        let mut scene = Scene::healthy();
        for id in scene.probed("kvm-floor") {
            scene.pages.push((id, page("same_across", "could_not", Some("hugetlb"), 512)));
        }
        let finding = scene.only_finding("shared_memory");
        assert!(finding.text.ends_with("can't be merged because it is of hugetlbfs"), "{}", finding.text);
        assert!(finding.next_step.contains("transparent huge pages"), "{}", finding.next_step);
    }

    #[test]
    fn shared_memory_in_which_nothing_is_equal_is_not_told() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        scene.pages.push((id.clone(), page("unique", "could_not", Some("unique"), 16_384)));
        scene.pages.push((id, page("same_within", "could_not", Some("shared_mapping"), 100)));
        assert!(scene.diagnose().findings.is_empty());
    }
}
