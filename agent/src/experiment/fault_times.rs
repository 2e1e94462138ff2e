//! Which instances are recorded with times of their page faults: the first of those that are alike, and one of eight after it.

use crate::correlate::FaultPrices;
use std::collections::HashMap;

/// One of so many instances that are alike.
const ONE_OF: u32 = 8;

/// What instances are alike by: kind of the sandbox and name of the workload.
type Alike = (String, String);

/// What is known of page faults so far.
#[derive(Debug, Default)]
pub struct FaultTimes(HashMap<Alike, Known>);

#[derive(Debug, Default)]
struct Known {
    recorded_count: u32,
    prices: FaultPrices,
}

impl FaultTimes {
    /// Whether faults of the next recording of such an instance are to be timed.
    pub(super) fn are_due(&mut self, sandbox: &str, workload: &str) -> bool {
        let known = self.of(sandbox, workload);
        let is_due = known.prices.is_empty() || known.recorded_count.is_multiple_of(ONE_OF);
        known.recorded_count += 1;
        is_due
    }

    /// What earlier instances told.
    pub(super) fn prices(&mut self, sandbox: &str, workload: &str) -> FaultPrices {
        self.of(sandbox, workload).prices.clone()
    }

    /// Takes in what an instance told.
    pub(super) fn learn(&mut self, sandbox: &str, workload: &str, told: &FaultPrices) {
        self.of(sandbox, workload).prices.add(told);
    }

    fn of(&mut self, sandbox: &str, workload: &str) -> &mut Known {
        self.0.entry((sandbox.to_owned(), workload.to_owned())).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::testing::timed_faults;

    #[test]
    fn faults_are_timed_until_a_price_is_known_and_then_now_and_then() {
        let mut times = FaultTimes::default();
        assert!(times.are_due("runc", "go") && times.are_due("runc", "go"), "nothing is known yet");
        times.learn("runc", "go", &timed_faults("runtime", 100, 90_000));
        let due: Vec<u32> = (2..20).filter(|_| times.are_due("runc", "go")).collect();
        assert_eq!(due, [8, 16]);
        assert!(times.are_due("runc", "rust"), "others have prices of their own");
        assert!(times.prices("runc", "rust").is_empty() && !times.prices("runc", "go").is_empty());
    }
}
