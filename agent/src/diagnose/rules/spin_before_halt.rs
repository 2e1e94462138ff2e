//! A guest that has nothing to do runs a loop before it halts, each time that it is woken.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic, Weight,
        vcpu::{NEEDS, Vcpu, costliest},
    },
    report::units::{duration, percent},
    results::Error,
};

/// Wake-ups per second: of fewer nothing can be said in a short window.
const LEAST_PER_S: f64 = 2.0;
/// Part of a CPU that is worth a change.
const LEAST_RATIO: f64 = 0.01;
/// Time in the guest per wake-up. A handler of a timer takes some microseconds; a loop that polls before it halts, such as OSv's
/// of ten thousand turns, takes tens of them.
const LEAST_GUEST_NS: f64 = 40_000.0;
/// The same where KVM does not tell when the guest runs: its own work counts as the guest's there, and it may have to interpret
/// the guest's kernel, at about a microsecond per instruction.
const LEAST_INTERPRETED_NS: f64 = 1_000_000.0;
/// Returns to the VMM per wake-up: a guest that has more does something with its devices.
const MOST_RETURNS: f64 = 1.0;

/// Reasons of exits that interrupt the guest wherever it is.
const INTERRUPTS: [&str; 4] = ["interrupt", "external_interrupt", "vintr", "irq"];

pub(super) struct SpinBeforeHalt;

impl Rule for SpinBeforeHalt {
    fn name(&self) -> &'static str {
        "spin_before_halt"
    }

    fn about(&self) -> &'static str {
        "vCPUs that compute for long after each wake-up, do nothing with their devices, and halt again."
    }

    fn topic(&self) -> Topic {
        Topic::Idle
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        costliest(case, |vcpu| guest_ns(vcpu).map(|guest_ns| (guest_ns, guest_ns)), finding)
    }
}

/// Time that a vCPU ran in its guest, if it is one that spins.
fn guest_ns(vcpu: &Vcpu<'_>) -> Option<u64> {
    let wakeups = wakeups(vcpu);
    let sum = |source: &str, part: fn(&crate::record::tables::Exit) -> Option<u64>| -> u64 {
        vcpu.exits_of(source).filter_map(part).sum()
    };
    let has_exits = vcpu.exits_of("kvm_exit").next().is_some();
    let (source, least_ns) =
        if has_exits { ("kvm_exit", LEAST_GUEST_NS) } else { ("kvm_vcpu_wakeup", LEAST_INTERPRETED_NS) };
    let outside = match has_exits {
        true => sum(source, |row| row.kernel_ns) + sum(source, |row| row.vmm_ns),
        false => sum("kvm_userspace_exit", |row| row.vmm_ns),
    };
    let polled = sum(source, |row| row.polled_ns);
    let guest_ns = vcpu.thread.on_cpu_ns.saturating_sub(outside + polled);
    let returns: u64 = vcpu.exits_of("kvm_userspace_exit").map(|row| row.count).sum();
    let spins = vcpu.per_s(wakeups) >= LEAST_PER_S
        && vcpu.ratio(guest_ns) >= LEAST_RATIO
        && guest_ns as f64 >= least_ns * wakeups as f64
        && returns as f64 <= MOST_RETURNS * wakeups as f64;
    spins.then_some(guest_ns)
}

fn wakeups(vcpu: &Vcpu<'_>) -> u64 {
    vcpu.wakeups.iter().map(|row| row.count).sum()
}

fn finding(subject: String, vcpu: &Vcpu<'_>, guest_ns: u64) -> Finding {
    let wakeups = wakeups(vcpu);
    let interrupted = |row: &crate::record::tables::GuestAddress| INTERRUPTS.contains(&row.reason.as_str());
    let place = vcpu
        .place(interrupted)
        .map_or_else(String::new, |place| format!("; where it was interrupted then it was most often in `{place}`"));
    let tid = vcpu.thread.tid;
    Finding {
        rule: SpinBeforeHalt.name(),
        weight: Weight::Insight,
        subject,
        text: format!(
            "vCPU {} runs for {} after each of its {:.0} wake-ups per second, does nothing with its devices meanwhile, and halts \
             again{place}; that costs {} of a CPU: a guest that spins before it halts looks like this",
            vcpu.number,
            duration(guest_ns as f64 / wakeups as f64),
            vcpu.per_s(wakeups),
            percent(vcpu.ratio(guest_ns))
        ),
        evidence: vec![
            Evidence::new("threads", format!("tid={tid} on_cpu_ns"), Quantity::Ns(vcpu.thread.on_cpu_ns as f64)),
            Evidence::new("wakeups", format!("tid={tid} sum of count"), Quantity::Count(wakeups)),
        ],
        next_step: "Look for a loop in the guest's idle code that polls before HLT, and make it shorter or leave it out (OSv: \
                    `idle_poll`; Linux: `cpuidle_haltpoll.guest_halt_poll_ns`, no `idle=poll`): the host polls by itself \
                    (kvm.halt_poll_ns). Where the tables have no addresses, profile the guest."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, exit, guest_address, wakeup};

    #[test]
    fn a_guest_that_spins_before_it_halts_is_told_with_the_place() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        // 20 per second in a window of ten seconds, and a loop of 1 ms each.
        scene.wakeups.push((id.clone(), wakeup("hrtimer", "apic_timer_fn [kvm]", 150, 1_500_000)));
        scene.thread_of(&id).on_cpu_ns = 200 * 1_500_000;
        scene.guest_addresses.push((id.clone(), guest_address("interrupt", "idle_poll+0x4", 30)));
        let mut halts = exit("hlt", 200);
        (halts.kernel_ns, halts.polled_ns) = (Some(200 * 50_000), Some(200 * 450_000));
        scene.exits.push((id, halts));
        let finding = scene.only_finding("spin_before_halt");
        let start = "vCPU 0 runs for 1.00 ms after each of its 20 wake-ups per second";
        assert!(finding.text.starts_with(start), "{}", finding.text);
        assert!(finding.text.contains("most often in `idle_poll+0x4`; that costs 2.0 %"), "{}", finding.text);
    }

    #[test]
    fn a_guest_that_works_with_its_devices_is_not_told() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        scene.thread_of(&id).on_cpu_ns = 50 * 3_000_000;
        assert_eq!(scene.diagnose().findings.len(), 1, "without work it would be");
        let mut returns = exit("io", 500);
        (returns.source, returns.vmm_ns) = ("kvm_userspace_exit".to_owned(), Some(0));
        scene.exits.push((id, returns));
        assert!(scene.diagnose().findings.is_empty());
    }
}
