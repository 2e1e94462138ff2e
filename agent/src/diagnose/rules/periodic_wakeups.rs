//! A thread of a sandbox that has nothing to do is woken by its own timer, again and again.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Topic, Weight},
    record::tables::{Thread, Wakeup, Window},
    report::units::percent,
    results::Error,
};

/// Wake-ups per second by timers: more than the few per second of daemons that look after themselves now and then.
const LEAST_PER_S: f64 = 8.0;
/// Threads that other rules are about, or that are the host's.
const OTHERS: [&str; 2] = ["vcpu", "helper"];

pub(super) struct PeriodicWakeups;

/// A thread that timers wake.
struct Periodic<'a> {
    thread: &'a Thread,
    span_ns: u64,
    count: u64,
    /// Function of the timer that wakes it most.
    function: &'a str,
    cpu_ns: u64,
}

impl Rule for PeriodicWakeups {
    fn name(&self) -> &'static str {
        "periodic_wakeups"
    }

    fn about(&self) -> &'static str {
        "Threads other than vCPUs that timers of their own wake 8 times per second or more."
    }

    fn topic(&self) -> Topic {
        Topic::Idle
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "windows", "threads", "wakeups"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let (windows, threads, wakeups) = (case.table::<Window>()?, case.table::<Thread>()?, case.table::<Wakeup>()?);
        let mut findings = Vec::new();
        for group in case.groups() {
            let mut periodic: Vec<Periodic<'_>> = Vec::new();
            for instance in &group.instances {
                let id = instance.instance_id.as_str();
                let Some(window) = windows.of(id).next().filter(|window| window.span_ns > 0) else { continue };
                for thread in threads.of(id).filter(|thread| !OTHERS.contains(&thread.role.as_str())) {
                    let timers: Vec<&Wakeup> =
                        wakeups.of(id).filter(|row| row.tid == thread.tid && is_timer(row)).collect();
                    let Some(most) = timers.iter().max_by_key(|row| row.count) else { continue };
                    periodic.push(Periodic {
                        thread,
                        span_ns: window.span_ns,
                        count: timers.iter().map(|row| row.count).sum(),
                        function: most.detail.as_deref().unwrap_or("timer"),
                        cpu_ns: timers.iter().filter_map(|row| row.on_cpu_after_ns).sum(),
                    });
                }
            }
            periodic.retain(|one| one.per_s() >= LEAST_PER_S);
            let others = periodic.len().saturating_sub(1) / group.instances.len().max(1);
            let most = periodic.into_iter().max_by(|one, other| one.per_s().total_cmp(&other.per_s()));
            findings.extend(most.map(|most| most.finding(group.subject(), others)));
        }
        Ok(findings)
    }
}

fn is_timer(row: &Wakeup) -> bool {
    row.cause == "hrtimer" || row.cause == "timer"
}

impl Periodic<'_> {
    fn per_s(&self) -> f64 {
        self.count as f64 * 1e9 / self.span_ns as f64
    }

    fn finding(&self, subject: String, others: usize) -> Finding {
        let Thread { tid, comm, role, syscall, .. } = self.thread;
        let sleeps = syscall.as_deref().map_or_else(String::new, |call| format!(", and sleeps in `{call}`"));
        let others = if others > 0 { format!(". So are {others} more threads of each") } else { String::new() };
        let key = format!("tid={tid} cause=hrtimer or timer, sum of count");
        Finding {
            rule: PeriodicWakeups.name(),
            weight: Weight::Insight,
            subject,
            text: format!(
                "Thread {tid} `{comm}` ({role}) is woken {:.0} times per second by a timer of its own (`{}`){sleeps}; that costs {} of a \
                 CPU{others}",
                self.per_s(),
                self.function,
                percent(self.cpu_ns as f64 / self.span_ns as f64)
            ),
            evidence: vec![Evidence::new("wakeups", key, Quantity::Count(self.count))],
            next_step: "Look in the program for what repeats at that rate: a poll with a time-out (`hz` in Redis, `setInterval`, a \
                        ticker), or its runtime's own timer. An event in place of the poll removes the wake-ups."
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        diagnose::testing::{Scene, vcpu, wakeup},
        record::tables::{Thread, Wakeup},
    };

    #[test]
    fn a_thread_that_polls_is_told_with_rate_and_call_and_a_rare_look_is_not() {
        let scene = |count: u64| {
            let mut scene = Scene::healthy();
            let id = scene.first_probed("kvm-floor");
            let thread = Thread {
                tid: 7,
                comm: "redis-server".to_owned(),
                role: "workload".to_owned(),
                syscall: Some("epoll_wait".to_owned()),
                ..vcpu()
            };
            scene.threads.push((id.clone(), thread));
            let wakes =
                Wakeup { tid: 7, role: "workload".to_owned(), ..wakeup("hrtimer", "hrtimer_wakeup", count, 20_000) };
            scene.wakeups.push((id, wakes));
            scene
        };
        // In ten seconds.
        let finding = scene(1000).only_finding("periodic_wakeups");
        let start = "Thread 7 `redis-server` (workload) is woken 100 times per second by a timer of its own (`hrtimer_wakeup`), and \
                     sleeps in `epoll_wait`; that costs 0.20 % of a CPU";
        assert!(finding.text.starts_with(start), "{}", finding.text);
        assert!(scene(30).diagnose().findings.is_empty());
    }
}
