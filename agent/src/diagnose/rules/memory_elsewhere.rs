//! The host lost more, or less, memory than the instances' processes have: and to whom.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Topic, Weight},
    record::tables,
    report::units::{counted, size},
    results::Error,
};

/// Part of the loss that may be somewhere else without being told.
const TOLERATED: f64 = 0.1;
/// Less is the host's own noise.
const LEAST_BYTES: i64 = 4 << 20;

pub(super) struct MemoryElsewhere;

impl Rule for MemoryElsewhere {
    fn name(&self) -> &'static str {
        "memory_elsewhere"
    }

    fn about(&self) -> &'static str {
        "Sandboxes that cost the host memory which no process of theirs has."
    }

    fn topic(&self) -> Topic {
        Topic::Memory
    }

    fn needs(&self) -> &'static [&'static str] {
        &["memory_host"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let host = case.table::<tables::MemoryHost>()?;
        let mut findings = Vec::new();
        for group in case.groups() {
            let rows = group.instances.iter().flat_map(|instance| host.of(&instance.instance_id));
            let Some(row) = rows.max_by_key(|row| row.instances_count) else { continue };
            // Pages of files can be had again, so the host does not miss them.
            let processes = row.pss_bytes.saturating_sub(row.pss_file_bytes).cast_signed();
            let elsewhere = row.lost_bytes - processes;
            if elsewhere.abs() < LEAST_BYTES || elsewhere.abs() as f64 <= TOLERATED * row.lost_bytes.abs() as f64 {
                continue;
            }
            let parts = [
                ("page tables", "lost_page_tables_bytes", row.lost_page_tables_bytes),
                ("kernel stacks", "lost_kernel_stack_bytes", row.lost_kernel_stack_bytes),
                ("kernel slabs", "lost_slab_bytes", row.lost_slab_bytes),
                ("kernel memory per CPU", "lost_per_cpu_bytes", row.lost_per_cpu_bytes),
                ("kernel memory in none of its books", "lost_other_bytes", row.lost_other_bytes),
                ("the kernel's estimate of what is available", "lost_estimate_bytes", row.lost_estimate_bytes),
                (
                    "memory of others than the sandbox",
                    "lost_mapped_bytes - (pss_bytes - pss_file_bytes)",
                    row.lost_mapped_bytes - processes,
                ),
            ];
            let Some(largest) = parts.iter().max_by_key(|(.., bytes)| bytes.abs()) else { continue };
            let by_others = largest.0.starts_with("memory of others");
            let key = format!("sandbox={} instances_count={}", row.sandbox, row.instances_count);
            findings.push(Finding {
                rule: self.name(),
                weight: if by_others { Weight::Problem } else { Weight::Insight },
                subject: group.subject(),
                text: format!(
                    "{} took {}{} of the host, but the processes have {}; most of the difference is {}",
                    counted(row.instances_count, "instance"),
                    if row.lost_bytes < 0 { "minus " } else { "" },
                    size(row.lost_bytes.abs() as f64),
                    size(processes as f64),
                    largest.0
                ),
                evidence: parts
                    .iter()
                    .filter(|(.., bytes)| bytes.abs() >= LEAST_BYTES / 4)
                    .map(|(_, column, bytes)| Evidence::new("memory_host", format!("{key} {column}"), Quantity::Bytes(*bytes as f64)))
                    .collect(),
                next_step: if by_others {
                    "Other programs took or gave back memory meanwhile: go by the sum of PSS, or measure on a quiet host."
                } else {
                    "Add it to what the processes have when you plan how many fit on a host; `kernel_memory` has what the \
                     kernel itself counts for each instance."
                }
                .to_owned(),
            });
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::{
        Weight,
        testing::{Scene, memory_host},
    };

    #[test]
    fn memory_that_the_kernel_has_is_told_with_its_name() {
        let mut scene = Scene::healthy();
        let mut row = memory_host("gvisor", 10, 400 << 20);
        row.lost_bytes += 200 << 20;
        row.lost_slab_bytes = 150 << 20;
        row.lost_kernel_stack_bytes = 50 << 20;
        let id = scene.first_probed("gvisor");
        scene.memory_host.push((id, row));
        let finding = scene.only_finding("memory_elsewhere");
        assert_eq!(finding.weight, Weight::Insight);
        assert!(
            finding.text.contains("took 600.0 MiB of the host, but the processes have 400.0 MiB"),
            "{}",
            finding.text
        );
        assert!(finding.text.ends_with("is kernel slabs"), "{}", finding.text);
    }

    #[test]
    fn memory_that_others_gave_back_is_a_problem() {
        let mut scene = Scene::healthy();
        let mut row = memory_host("gvisor", 10, 100 << 20);
        row.lost_bytes -= 300 << 20;
        row.lost_mapped_bytes -= 300 << 20;
        let id = scene.first_probed("gvisor");
        scene.memory_host.push((id, row));
        let finding = scene.only_finding("memory_elsewhere");
        assert_eq!(finding.weight, Weight::Problem);
        assert!(finding.text.contains("took minus 200.0 MiB of the host"), "{}", finding.text);
    }

    #[test]
    fn what_adds_up_is_not_told() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("gvisor");
        scene.memory_host.push((id, memory_host("gvisor", 10, 400 << 20)));
        assert!(scene.diagnose().findings.is_empty());
    }
}
