//! A guest that has nothing to do is woken by its own periodic timer.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Quantity, Rule, Topic, Weight,
        vcpu::{NEEDS, Vcpu, costliest},
    },
    report::units::percent,
    results::Error,
};

/// Wake-ups per second by the timer: below the 100 of the slowest tick that guests have, so that a host that is late with some
/// does not hide it, and far above the few per second of a guest without a tick.
const LEAST_PER_S: f64 = 50.0;
/// Part of the vCPU's wake-ups.
const LEAST_SHARE: f64 = 0.5;

/// Functions of the host by which KVM keeps a guest's timers: x86's local APIC and PIT, arm64's generic timer.
const GUEST_TIMERS: [&str; 4] = ["apic_timer_fn", "pit_timer_fn", "kvm_bg_timer_expire", "kvm_hrtimer_expire"];

pub(super) struct TimerTick;

/// Wake-ups of a vCPU by its guest's timer.
struct Tick {
    function: &'static str,
    count: u64,
    all: u64,
    cpu_ns: u64,
}

impl Rule for TimerTick {
    fn name(&self) -> &'static str {
        "timer_tick"
    }

    fn about(&self) -> &'static str {
        "vCPUs that a timer of their guest wakes 50 times per second or more."
    }

    fn topic(&self) -> Topic {
        Topic::Idle
    }

    fn needs(&self) -> &'static [&'static str] {
        NEEDS
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        costliest(case, |vcpu| tick_of(vcpu).map(|tick| (tick.cpu_ns, tick)), finding)
    }
}

fn tick_of(vcpu: &Vcpu<'_>) -> Option<Tick> {
    let all = vcpu.wakeups.iter().map(|row| row.count).sum();
    let by_timer = vcpu.wakeups.iter().filter_map(|row| {
        let detail = row.detail.as_deref().filter(|_| row.cause == "hrtimer")?;
        let function = GUEST_TIMERS.iter().find(|function| detail.contains(*function))?;
        Some((*function, row))
    });
    let (mut tick, mut function) = (Tick { function: "", count: 0, all, cpu_ns: 0 }, None);
    for (name, row) in by_timer {
        function = Some(name);
        tick.count += row.count;
        tick.cpu_ns += row.on_cpu_after_ns.unwrap_or(0);
    }
    tick.function = function?;
    let is_tick = vcpu.per_s(tick.count) >= LEAST_PER_S && tick.count as f64 >= LEAST_SHARE * all as f64;
    is_tick.then_some(tick)
}

fn finding(subject: String, vcpu: &Vcpu<'_>, tick: Tick) -> Finding {
    let Tick { function, count, all, cpu_ns } = tick;
    let cost = vcpu.ratio(cpu_ns);
    let programmed: u64 = vcpu.exits_of("timer").map(|row| row.count).sum();
    let place = vcpu.place(|row| row.source == "timer").map_or_else(String::new, |place| format!(" in `{place}`"));
    let programs = match programmed {
        0 => String::new(),
        _ => format!("; the guest starts the timer {:.0} times per second{place}", vcpu.per_s(programmed)),
    };
    let tid = vcpu.thread.tid;
    let of = |column: &str| format!("tid={tid} cause=hrtimer detail={function} sum of {column}");
    let mut evidence = vec![
        Evidence::new("wakeups", of("count"), Quantity::Count(count)),
        Evidence::new("wakeups", of("on_cpu_after_ns"), Quantity::Ns(cpu_ns as f64)),
    ];
    if programmed > 0 {
        let key = format!("vcpu={} source=timer sum of count", vcpu.number);
        evidence.push(Evidence::new("exits", key, Quantity::Count(programmed)));
    }
    Finding {
        rule: TimerTick.name(),
        weight: Weight::Insight,
        subject,
        text: format!(
            "vCPU {} wakes {:.0} times per second; {} by the hrtimer `{function}`, a timer of the guest{programs}; that costs {} \
             of a CPU",
            vcpu.number,
            vcpu.per_s(all),
            percent(count as f64 / all as f64),
            percent(cost)
        ),
        evidence,
        next_step: "Let the guest stop its tick when it has nothing to do (Linux: CONFIG_NO_HZ_IDLE, and no `nohz=off`; a \
                    unikernel: start the timer for the next deadline only). The table `guest_addresses` has where the guest \
                    starts it; --guest-symbols gives these places names."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, guest_address, timer, wakeup};

    #[test]
    fn a_guest_with_a_tick_is_told_with_its_rate_and_place() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        scene.wakeups.push((id.clone(), wakeup("hrtimer", "apic_timer_fn [kvm]", 9980, 31_000)));
        scene.exits.push((id.clone(), timer("apic_initial_count", 10_000)));
        scene.guest_addresses.push((id, guest_address("timer", "tick_handler+0x12", 10_000)));
        let finding = scene.only_finding("timer_tick");
        // The scene's vCPU is woken five times per second besides.
        assert!(finding.text.starts_with("vCPU 0 wakes 1003 times per second; 99.5 % by"), "{}", finding.text);
        assert!(
            finding.text.contains("starts the timer 1000 times per second in `tick_handler+0x12`"),
            "{}",
            finding.text
        );
        assert!(finding.text.ends_with("that costs 3.1 % of a CPU"), "{}", finding.text);
    }

    #[test]
    fn other_timers_and_a_timer_now_and_then_are_not_told() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        scene.wakeups.push((id.clone(), wakeup("hrtimer", "hrtimer_wakeup", 9980, 31_000)));
        scene.wakeups.push((id, wakeup("hrtimer", "apic_timer_fn [kvm]", 400, 31_000)));
        assert!(scene.diagnose().findings.is_empty());
    }
}
