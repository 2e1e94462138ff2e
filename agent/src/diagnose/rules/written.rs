//! Guests that have written to most of the memory that they were restored with, so that they share little of it any more.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic,
        pages::{NEEDS, Told, findings},
    },
    report::units::{percent, size},
    results::Error,
};

/// Share of the guests' memory from which on the snapshot is shared no more.
const LEAST: f64 = 0.25;
/// Less per instance is not worth a change.
const LEAST_BYTES: f64 = (1 << 20) as f64;

pub(super) struct Written;

impl Rule for Written {
    fn name(&self) -> &'static str {
        "written_since_restore"
    }

    fn about(&self) -> &'static str {
        "Guests that have changed much of the snapshot that they were restored from."
    }

    fn topic(&self) -> Topic {
        Topic::Pages
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        findings(self, case, |instances| {
            let (mut all, mut written, mut guests) = (0, 0, 0);
            for pages in instances {
                let of = pages.iter().filter(|row| row.region == "guest");
                let (of_all, of_written) = of.fold((0, 0), |(all, written), row| {
                    let is_written = row.reason.as_deref() == Some("written");
                    (all + row.size_bytes, written + if is_written { row.size_bytes } else { 0 })
                });
                all += of_all;
                written += of_written;
                guests += u64::from(of_all > 0);
            }
            let (ratio, mean) = (written as f64 / all.max(1) as f64, written as f64 / guests.max(1) as f64);
            if ratio < LEAST || mean < LEAST_BYTES {
                return None;
            }
            Some(Told {
                text: format!(
                    "Each guest has written to {} of the memory that it was restored with ({} of what it has in memory): these \
                     pages are its own, and are no more shared with the other guests of the snapshot",
                    size(mean),
                    percent(ratio)
                ),
                evidence: vec![Evidence::new(
                    "pages",
                    "region=guest reason=written mean of size_bytes",
                    Quantity::Bytes(mean),
                )],
                next_step: "Take the snapshot later, when the program has warmed up and written what it writes once."
                    .to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, page};

    #[test]
    fn a_snapshot_that_is_mostly_written_to_is_told() {
        let mut scene = Scene::healthy();
        for id in scene.probed("kvm-floor") {
            scene.pages.push((id.clone(), page("unique", "could_not", Some("written"), 512)));
            scene.pages.push((id, page("same_as_file", "already", None, 1024)));
        }
        let finding = scene.only_finding("written_since_restore");
        assert!(finding.text.contains("written to 2.0 MiB") && finding.text.contains("(33.3 %"), "{}", finding.text);
    }
}
