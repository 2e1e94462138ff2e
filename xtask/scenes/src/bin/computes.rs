//! Has work for four CPUs before it serves: with a limit of one, it is kept from running most of the time.

use std::{
    thread,
    time::{Duration, Instant},
};

const THREADS: usize = 4;
const WORK: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(work)).collect();
    for thread in threads {
        thread.join().expect("computing does not panic");
    }
    match scenes::serve(start)? {}
}

/// Work that is as much with fewer CPUs: it is measured by the thread's own CPU time.
fn work() {
    let spent = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let begun = spent();
    while spent() - begun < WORK.try_into().expect("a short time") {
        std::hint::spin_loop();
    }
}
