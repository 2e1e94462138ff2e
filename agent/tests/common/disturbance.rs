//! What others do on the machine while a test measures.
//!
//! A product that is wrong is wrong each time; a measurement that others got in the way of is not. How long something took, or
//! the ratio of two such times, has no bound that is both sharp and kept whatever else the machine does. So the bound stays as
//! sharp as a quiet machine allows, and the whole measurement is made again where it was not kept. Where the kernel counts what
//! others did, as it does the pages that it took back, that count is allowed for instead.

/// Attempts at a measurement, of which one has to be right.
const ATTEMPTS: usize = 3;

/// Measures until it is right, at most [`ATTEMPTS`] times; panics with what was wrong each time. What can be wrong only because
/// the product is, the measurement itself should assert.
pub fn undisturbed<T>(mut measure: impl FnMut() -> anyhow::Result<T>) -> T {
    let mut wrong = Vec::new();
    while wrong.len() < ATTEMPTS {
        match measure() {
            Ok(value) => return value,
            Err(error) => wrong.push(format!("{error:#}")),
        }
        eprintln!("attempt {} of {ATTEMPTS}: {}", wrong.len(), wrong[wrong.len() - 1]);
    }
    panic!("wrong in each of {ATTEMPTS} attempts: {wrong:#?}");
}

/// Pages that this kernel says it took back so far, of files or not, for whatever reason.
pub fn reclaimed_pages() -> u64 {
    let vmstat = std::fs::read_to_string("/proc/vmstat").unwrap();
    // By what they are: sums by who took them leave out DAMON.
    let counts = ["pgsteal_anon ", "pgsteal_file "];
    let of = |line: &str| counts.iter().find_map(|name| line.strip_prefix(name)?.parse::<u64>().ok());
    vmstat.lines().filter_map(of).sum()
}
