//! What else goes on on the host: conditions of a measurement that can't be set, only waited for and written down.

use anyhow::{Context, Result};
use procfs::{CurrentSI as _, KernelStats};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Over so long others are watched.
const WINDOW: Duration = Duration::from_millis(50);
/// How long is waited before they are watched again.
const PAUSE: Duration = Duration::from_millis(200);

/// The host right before an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct HostLoad {
    /// Share of all CPUs' time that somebody used.
    pub busy_ratio: f64,
    /// Share that a hypervisor below did not give.
    pub steal_ratio: f64,
    /// Whether that is no more than was asked for.
    pub quiet: bool,
    /// Frequency governors, if they can be seen.
    pub governors: BTreeSet<String>,
    /// How often the CPUs were slowed down because of heat since the start of the host, if that can be seen.
    pub throttled_count: Option<u64>,
}

impl HostLoad {
    /// Conditions as instances have them.
    pub fn conditions(&self) -> [(String, String); 5] {
        let governors = self.governors.iter().cloned().collect::<Vec<_>>().join(",");
        let or_unseen = |text: String| if text.is_empty() { "not visible".to_owned() } else { text };
        let throttled = self.throttled_count.map(|count| count.to_string()).unwrap_or_default();
        [
            ("host_busy_ratio", format!("{:.3}", self.busy_ratio)),
            ("host_steal_ratio", format!("{:.3}", self.steal_ratio)),
            ("host_quiet", self.quiet.to_string()),
            ("governor", or_unseen(governors)),
            ("throttled_count", or_unseen(throttled)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}

/// The host as it is now. Takes 50 ms.
///
/// # Errors
/// When the kernel does not tell.
pub async fn look() -> Result<HostLoad> {
    settled(f64::INFINITY, Duration::ZERO).await
}

/// Waits until the host is no busier than `busy_ratio`, but no longer than `patience`; tells how it is then.
///
/// # Errors
/// When the kernel does not tell.
pub async fn settled(busy_ratio: f64, patience: Duration) -> Result<HostLoad> {
    let begun = Instant::now();
    loop {
        let before = Times::now()?;
        tokio::time::sleep(WINDOW).await;
        let since = Times::now()?.since(&before);
        let ratio = |part: u64| part as f64 / since.total.max(1) as f64;
        let quiet = ratio(since.busy) <= busy_ratio;
        if quiet || begun.elapsed() + PAUSE > patience {
            let cpus = Path::new("/sys/devices/system/cpu");
            return Ok(HostLoad {
                busy_ratio: ratio(since.busy),
                steal_ratio: ratio(since.steal),
                quiet,
                governors: of_cpus(cpus, "cpufreq/scaling_governor").collect(),
                throttled_count: of_cpus(cpus, "thermal_throttle/core_throttle_count")
                    .map(|count| count.parse::<u64>().ok())
                    .reduce(|sum, count| Some(sum? + count?))
                    .flatten(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ticks of all CPUs.
struct Times {
    total: u64,
    busy: u64,
    steal: u64,
}

impl Times {
    fn now() -> Result<Self> {
        let all = KernelStats::current().context("can't read the CPUs' times")?.total;
        let steal = all.steal.unwrap_or(0);
        let busy = all.user + all.nice + all.system + all.irq.unwrap_or(0) + all.softirq.unwrap_or(0) + steal;
        Ok(Self { total: busy + all.idle + all.iowait.unwrap_or(0), busy, steal })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            busy: self.busy.saturating_sub(before.busy),
            steal: self.steal.saturating_sub(before.steal),
        }
    }
}

/// What a file of each CPU says, where there is one.
fn of_cpus(cpus: &Path, file: &str) -> impl Iterator<Item = String> {
    let folders = fs::read_dir(cpus).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter_map(move |folder| Some(fs::read_to_string(folder.join(file)).ok()?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_host_is_waited_for_and_told() {
        let calm = settled(1.0, Duration::ZERO).await.unwrap();
        assert!(calm.quiet && (0.0..=1.0).contains(&calm.busy_ratio), "{calm:?}");
        let begun = Instant::now();
        // Nothing is below nothing.
        let busy = settled(-1.0, Duration::from_millis(300)).await.unwrap();
        assert!(!busy.quiet && begun.elapsed() >= WINDOW, "{busy:?}");
        assert!(busy.conditions().contains(&("host_quiet".to_owned(), "false".to_owned())));
    }

    #[test]
    fn what_cpus_do_not_say_is_not_made_up() {
        let cpus = tempfile::tempdir().unwrap();
        for (cpu, governor) in [("cpu0", "performance"), ("cpu1", "performance")] {
            fs::create_dir_all(cpus.path().join(cpu).join("cpufreq")).unwrap();
            fs::write(cpus.path().join(cpu).join("cpufreq/scaling_governor"), format!("{governor}\n")).unwrap();
        }
        let governors: BTreeSet<_> = of_cpus(cpus.path(), "cpufreq/scaling_governor").collect();
        assert_eq!(governors, BTreeSet::from(["performance".to_owned()]));
        assert_eq!(of_cpus(cpus.path(), "thermal_throttle/core_throttle_count").count(), 0);
    }
}
