//! A thread uses much of a CPU while its sandbox is watched.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Topic, Weight},
    record::tables::{Thread, Window},
    report::units::percent,
    results::Error,
};

/// Part of a CPU.
const LEAST: f64 = 0.10;
/// Threads that are told of.
const MOST: usize = 3;
/// Calls in which a thread waits for others: who is found there and yet has the CPU looks again and again.
const WAITING: [&str; 6] = ["epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6"];

pub(super) struct BusyThread;

impl Rule for BusyThread {
    fn name(&self) -> &'static str {
        "busy_thread"
    }

    fn about(&self) -> &'static str {
        "Threads that use 10 % of a CPU or more while their sandbox is watched."
    }

    fn topic(&self) -> Topic {
        Topic::Idle
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "windows", "threads"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let (windows, threads) = (case.table::<Window>()?, case.table::<Thread>()?);
        let mut findings = Vec::new();
        for group in case.groups() {
            let mut busy: Vec<(f64, u64, &Thread)> = Vec::new();
            for instance in &group.instances {
                let id = instance.instance_id.as_str();
                let Some(window) = windows.of(id).next().filter(|window| window.span_ns > 0) else { continue };
                let share = |thread: &Thread| thread.on_cpu_ns as f64 / window.span_ns as f64;
                busy.extend(threads.of(id).map(|thread| (share(thread), window.span_ns, thread)));
            }
            busy.retain(|(share, ..)| *share >= LEAST);
            busy.sort_by(|one, other| other.0.total_cmp(&one.0));
            if busy.is_empty() {
                continue;
            }
            let told: Vec<String> =
                busy.iter().take(MOST).map(|&(share, span_ns, thread)| tell(share, span_ns, thread)).collect();
            let evidence = busy.iter().take(MOST).map(|(share, _, thread)| {
                let key = format!("tid={} comm={} on_cpu_ns / span_ns", thread.tid, thread.comm);
                Evidence::new("threads", key, Quantity::Ratio(*share))
            });
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: told.join(". "),
                evidence: evidence.collect(),
                next_step:
                    "If it should be idle: look at what the thread repeats (`perf top -t TID`, `strace -p TID`)."
                        .to_owned(),
            });
        }
        Ok(findings)
    }
}

fn tell(share: f64, span_ns: u64, thread: &Thread) -> String {
    let per_s = |count: u64| count as f64 * 1e9 / span_ns as f64;
    let Thread { tid, comm, role, .. } = thread;
    let share = percent(share);
    if let Some(count) = thread.threads_count.filter(|&count| count > 1) {
        return format!("{count} threads `{comm}` ({role}) that came and went use {share} of a CPU");
    }
    let waits = |places: &str| {
        let call = places.split_whitespace().next();
        call.filter(|call| WAITING.contains(call)).map(str::to_owned)
    };
    let spins = |call: &str| format!(": it spins in `{call}`, which returns at once");
    let where_ = match (thread.found_in.as_deref(), thread.syscall.as_deref()) {
        (Some(places), _) => match waits(places) {
            Some(call) => format!("{}; while it runs it is in {places}", spins(&call)),
            None => format!("; while it runs it is in {places}"),
        },
        (None, Some(call)) if WAITING.contains(&call) => spins(call),
        (None, Some(call)) => format!(", seen in `{call}`"),
        (None, None) => String::new(),
    };
    let sleeps = per_s(thread.sleeps_count);
    format!("Thread {tid} `{comm}` ({role}) uses {share} of a CPU{where_}; it sleeps {sleeps:.0} times per second")
}

#[cfg(test)]
mod tests {
    use crate::{
        diagnose::testing::{Scene, vcpu},
        record::tables::Thread,
    };

    #[test]
    fn a_thread_that_spins_in_epoll_is_told() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        let thread = Thread {
            tid: 7,
            comm: "node".to_owned(),
            role: "workload".to_owned(),
            syscall: Some("epoll_wait".to_owned()),
            on_cpu_ns: 4_000_000_000,
            sleeps_count: 20,
            ..vcpu()
        };
        scene.threads.push((id, thread));
        let finding = scene.only_finding("busy_thread");
        let expected = "Thread 7 `node` (workload) uses 40.0 % of a CPU: it spins in `epoll_wait`, which returns at once; it sleeps 2 \
                        times per second";
        assert_eq!(finding.text, expected);
    }

    #[test]
    fn one_that_never_sleeps_is_told_by_where_it_was_found() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        let thread = Thread {
            tid: 7,
            comm: "loop".to_owned(),
            role: "workload".to_owned(),
            syscall: None,
            found_in: Some("epoll_wait 92 %, main 8 %".to_owned()),
            on_cpu_ns: 4_000_000_000,
            sleeps_count: 0,
            ..vcpu()
        };
        scene.threads.push((id, thread));
        let text = scene.only_finding("busy_thread").text;
        assert!(text.contains("it spins in `epoll_wait`") && text.contains("in epoll_wait 92 %, main 8 %;"), "{text}");
    }

    #[test]
    fn many_short_ones_are_told_together() {
        let mut scene = Scene::healthy();
        let id = scene.first_probed("kvm-floor");
        let thread = Thread {
            tid: 0,
            threads_count: Some(20_000),
            comm: "sh".to_owned(),
            role: "workload".to_owned(),
            on_cpu_ns: 4_000_000_000,
            ..vcpu()
        };
        scene.threads.push((id, thread));
        let text = scene.only_finding("busy_thread").text;
        assert_eq!(text, "20000 threads `sh` (workload) that came and went use 40.0 % of a CPU");
    }
}
