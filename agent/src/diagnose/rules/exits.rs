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
                let mut by_reason: BTreeMap<Reason<'_>, f64> = BTreeMap::new();
                for part in &share.parts {
                    *by_reason.entry(Reason::of(part.element.detail.as_deref())).or_default() += part.mean_ns;
                }
                let most = by_reason.into_iter().max_by(|one, other| one.1.total_cmp(&other.1));
                let Some((reason, mean_ns)) = most else { return Ok(None) };
                let explained = group.explained();
                let of_reason = |row: &&crate::results::Of<Exit>| {
                    explained.contains(row.instance_id.as_str()) && row.source == "kvm_exit" && reason.is_of(row)
                };
                let mut by_place: BTreeMap<Option<&str>, u64> = BTreeMap::new();
                for row in exits.rows.iter().filter(of_reason) {
                    *by_place.entry(row.detail.as_deref()).or_default() += row.count;
                }
                let count: u64 = by_place.values().sum();
                let place = by_place.into_iter().max_by_key(|(_, count)| *count).and_then(|(place, _)| place);
                let key =
                    format!("sandbox={} source=kvm_exit reason={} count of all instances", group.sandbox, reason.name);
                Ok(Some(Told {
                    text: format!(
                        "is the host that handles exits of the guest{}; {} of that is `{}`, {:.0} times per start{}",
                        path.without("exit"),
                        percent(mean_ns / share.mean_ns),
                        reason.name,
                        count as f64 / explained.len() as f64,
                        reason.meaning(place),
                    ),
                    evidence: vec![Evidence::new("exits", key, Quantity::Count(count))],
                    next_step: reason.next_step().to_owned(),
                }))
            },
        )
    }
}

/// Why guests exit, wherever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reason<'a> {
    name: &'a str,
    /// For memory of a device.
    is_device: bool,
}

impl<'a> Reason<'a> {
    /// Of what the account calls it, such as `npf (mmio 0xc0001000)`.
    fn of(detail: Option<&'a str>) -> Self {
        let detail = detail.unwrap_or("unknown");
        match detail.split_once(" (") {
            Some((name, _)) => Self { name, is_device: true },
            None => Self { name: detail, is_device: false },
        }
    }

    fn is_of(self, row: &Exit) -> bool {
        row.reason == self.name && row.detail.is_some() == self.is_device
    }

    fn is_page_fault(self) -> bool {
        !self.is_device && PAGE_FAULTS.iter().any(|fault| self.name.starts_with(fault))
    }

    /// What the guest does, most often at `place`.
    fn meaning(self, place: Option<&str>) -> String {
        if self.is_device {
            let most = place.map_or_else(String::new, |place| format!(", most often at `{place}`"));
            format!(": the guest reaches for registers of devices{most}")
        } else if self.is_page_fault() {
            ": the guest touches memory for the first time".to_owned()
        } else {
            String::new()
        }
    }

    fn next_step(self) -> &'static str {
        if self.is_page_fault() {
            "Back the guest's memory by huge pages, give it less (--memory), or keep a smaller kernel and image: each page \
             that it touches costs one such exit."
        } else if self.is_device {
            "Each access to a register of a device is an exit: look which device is at that address (the guest's command line \
             or the VMM's log) and why its driver asks so often. Larger requests, notifications that are suppressed while the \
             queue is busy, and reading by blocks instead of sectors need fewer."
        } else if DEVICES.contains(&self.name) {
            "The table `exits` names the ports and addresses (sources `kvm_pio`, `kvm_mmio`); a console costs an exit per byte \
             (--console false), and probing for devices that are not there costs many."
        } else {
            "The table `exits` has all reasons with counts and times."
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        diagnose::testing::{Part, Scene, exit},
        record::tables::Exit,
    };

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

    #[test]
    fn a_guest_that_reaches_for_a_device_does_not_touch_memory_for_the_first_time() {
        let mut scene = Scene::healthy();
        scene.spend("kvm-floor", 0.5, Part::of("exit", "vcpu").by("npf (mmio 0xc0001000)"));
        let probed = scene.probed("kvm-floor");
        scene.exits.extend(probed.into_iter().flat_map(|id| {
            let at = |detail: &str, count| Exit { detail: Some(detail.to_owned()), ..exit("npf", count) };
            [exit("npf", 72), at("mmio 0xc0001000", 23_000), at("mmio 0xc0000000", 8)].map(|row| (id.clone(), row))
        }));
        let finding = scene.only_finding("exits");
        let end =
            "`npf`, 23008 times per start: the guest reaches for registers of devices, most often at `mmio 0xc0001000`";
        assert!(finding.text.ends_with(end), "{}", finding.text);
        assert!(!finding.next_step.contains("huge pages"), "{}", finding.next_step);
    }
}
