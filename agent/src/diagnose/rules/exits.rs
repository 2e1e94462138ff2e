//! A guest boots slowly because the host handles its exits.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic,
        starts::{self, Told},
    },
    record::tables::Exit,
    report::units::percent,
    results::Error,
};
use std::collections::BTreeMap;

/// Part of the wall time.
const TOLERATED: f64 = 0.25;

/// Reasons of exits that are page faults of the guest's memory, on VMX, SVM and arm64.
const PAGE_FAULTS: [&str; 7] =
    ["ept_violation", "ept_misconfig", "npf", "dabt_low", "iabt_low", "exception_nmi", "excp"];
/// Reasons that are accesses to devices.
const DEVICES: [&str; 4] = ["io_instruction", "io", "ioio", "mmio"];

pub(super) struct Exits;

impl Rule for Exits {
    fn name(&self) -> &'static str {
        "exits"
    }

    fn about(&self) -> &'static str {
        "Guests of whose start 25 % or more is the host's handling of exits, such as page faults."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn category(&self) -> Option<&'static str> {
        Some("exit")
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "exits"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let exits = case.table::<Exit>()?;
        starts::above(
            self,
            case,
            TOLERATED,
            |element| element.category == "exit",
            |group, path, share| {
                let mut by_reason: BTreeMap<&str, f64> = BTreeMap::new();
                for part in &share.parts {
                    *by_reason.entry(part.element.detail.as_deref().unwrap_or("unknown")).or_default() += part.mean_ns;
                }
                let most = by_reason.iter().max_by(|one, other| one.1.total_cmp(other.1));
                let Some((&reason, &mean_ns)) = most else { return Ok(None) };
                let explained = group.explained();
                let of_reason = |row: &&crate::results::Of<Exit>| {
                    explained.contains(row.instance_id.as_str()) && row.source == "kvm_exit" && row.reason == reason
                };
                let count: u64 = exits.rows.iter().filter(of_reason).map(|row| row.count).sum();
                let key = format!("sandbox={} source=kvm_exit reason={reason} count of all instances", group.sandbox);
                Ok(Some(Told {
                    text: format!(
                        "is the host that handles exits of the guest{}; {} of that is `{reason}`, {:.0} times per start{}",
                        path.without("exit"),
                        percent(mean_ns / share.mean_ns),
                        count as f64 / explained.len() as f64,
                        if is_page_fault(reason) { ": the guest touches memory for the first time" } else { "" }
                    ),
                    evidence: vec![Evidence::new("exits", key, Quantity::Count(count))],
                    next_step: next_step(reason).to_owned(),
                }))
            },
        )
    }
}

fn is_page_fault(reason: &str) -> bool {
    PAGE_FAULTS.iter().any(|fault| reason.starts_with(fault))
}

fn next_step(reason: &str) -> &'static str {
    if is_page_fault(reason) {
        "Back the guest's memory by huge pages, give it less (--memory), or keep a smaller kernel and image: each page that \
         it touches costs one such exit."
    } else if DEVICES.contains(&reason) {
        "The table `exits` names the ports and addresses (sources `kvm_pio`, `kvm_mmio`); a console costs an exit per byte \
         (--console false), and probing for devices that are not there costs many."
    } else {
        "The table `exits` has all reasons with counts and times."
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene, exit};

    #[test]
    fn a_guest_that_faults_half_the_time_is_told() {
        let mut scene = Scene::healthy();
        scene.spend("kvm-floor", 0.5, Part::of("exit", "vcpu").by("ept_violation"));
        let probed = scene.probed("kvm-floor");
        scene.exits.extend(probed.into_iter().map(|id| (id, exit("ept_violation", 300))));
        let finding = scene.only_finding("exits");
        let end = "of that is `ept_violation`, 300 times per start: the guest touches memory for the first time";
        assert!(finding.text.ends_with(end), "{}", finding.text);
        assert!(finding.next_step.contains("huge pages"));
    }
}
