//! The classes of pages are not the whole memory: the kernel counts more pages than were found, or fewer.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic, Weight,
        pages::{NEEDS_SCANS, Told, findings_of_scans},
    },
    measure::memory::pages::balance::Balance,
    results::Error,
};

pub(super) struct PagesMissing;

impl Rule for PagesMissing {
    fn name(&self) -> &'static str {
        "pages_missing"
    }

    fn about(&self) -> &'static str {
        "Looks at pages that found another number of them than the kernel counts."
    }

    fn topic(&self) -> Topic {
        Topic::Pages
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS_SCANS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        findings_of_scans(self, case, Weight::Problem, |scan| {
            let (found, counted_by_kernel) = (scan.mapped_pages_count?, scan.kernel_pages_count?);
            if (Balance { found, counted_by_kernel }).holds() {
                return None;
            }
            let went_on = scan.paused_ns.is_none() || scan.cut_short == Some(true) || scan.running_threads_count > 0;
            Some(Told {
                text: format!(
                    "{found} pages were found where the kernel counts {counted_by_kernel}: the classes of pages are not the whole memory"
                ),
                evidence: vec![
                    Evidence::new("page_scans", "mapped_pages_count", Quantity::Count(found)),
                    Evidence::new("page_scans", "kernel_pages_count", Quantity::Count(counted_by_kernel)),
                ],
                next_step: if went_on {
                    "Instances or threads of them went on and changed their memory meanwhile: let them stand still (without --no-pause)."
                } else {
                    "The kernel took pages away or made some meanwhile (reclaim, huge pages), or part of the memory can't be read: \
                     look again when the host has free memory."
                }
                .to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        diagnose::{
            Weight,
            testing::{Scene, page_scan},
        },
        record::tables::PageScan,
    };

    #[test]
    fn pages_that_were_not_found_are_a_problem() {
        let mut scene = Scene::healthy();
        let row = PageScan { mapped_pages_count: Some(50_000), ..page_scan("gvisor") };
        scene.page_scans.push((scene.first_probed("gvisor"), row));
        let finding = scene.only_finding("pages_missing");
        assert_eq!(finding.weight, Weight::Problem);
        assert!(finding.text.starts_with("50000 pages were found where the kernel counts 100000"), "{}", finding.text);
        assert!(finding.next_step.starts_with("The kernel took"), "{}", finding.next_step);
    }

    #[test]
    fn instances_that_went_on_are_the_likely_reason() {
        let mut scene = Scene::healthy();
        let row = PageScan { mapped_pages_count: Some(110_000), paused_ns: None, ..page_scan("gvisor") };
        scene.page_scans.push((scene.first_probed("gvisor"), row));
        let finding = scene.only_finding("pages_missing");
        assert!(finding.next_step.contains("without --no-pause"), "{}", finding.next_step);
    }

    #[test]
    fn what_adds_up_is_not_told() {
        let mut scene = Scene::healthy();
        scene.page_scans.push((scene.first_probed("gvisor"), page_scan("gvisor")));
        assert!(scene.diagnose().findings.is_empty());
    }
}
