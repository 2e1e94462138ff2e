//! The page cache holds the same file twice, as it has copies: one for each layer, image or instance.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic, Weight,
        pages::{NEEDS_SCANS, Told, findings_of_scans},
    },
    report::units::size,
    results::Error,
};

/// Less is not worth a change.
const LEAST_BYTES: u64 = 1 << 20;

pub(super) struct FileCopies;

impl Rule for FileCopies {
    fn name(&self) -> &'static str {
        "file_copies"
    }

    fn about(&self) -> &'static str {
        "Instances that use copies of the same files, each of which takes its own part of the page cache."
    }

    fn topic(&self) -> Topic {
        Topic::Pages
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS_SCANS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        findings_of_scans(self, case, Weight::Insight, |scan| {
            let bytes = scan.file_copies_bytes.filter(|bytes| *bytes >= LEAST_BYTES)? as f64;
            Some(Told {
                text: format!(
                    "{} of the page cache are equal and not shared: copies of files that it has already, at the same places",
                    size(bytes)
                ),
                evidence: vec![Evidence::new("page_scans", "file_copies_bytes", Quantity::Bytes(bytes))],
                next_step: "The page cache is by file, not by content, and KSM merges no files: let the instances use one file, by a \
                            common layer of their images, a hard link, or a read-only root that all of them mount."
                    .to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, page_scan};

    #[test]
    fn copies_of_files_are_told() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("runc");
        let mut row = page_scan("runc");
        row.file_copies_bytes = Some(12 << 20);
        scene.page_scans.push((id, row));
        let finding = scene.only_finding("file_copies");
        assert!(finding.text.starts_with("12.0 MiB of the page cache are equal and not shared"), "{}", finding.text);
    }

    #[test]
    fn a_few_pages_and_results_that_do_not_say_are_not_told() {
        let mut scene = Scene::healthy();
        for (id, bytes) in scene.probed("runc").into_iter().zip([Some(4096), None]) {
            scene
                .page_scans
                .push((id, crate::record::tables::PageScan { file_copies_bytes: bytes, ..page_scan("runc") }));
        }
        assert!(scene.diagnose().findings.is_empty());
    }
}
