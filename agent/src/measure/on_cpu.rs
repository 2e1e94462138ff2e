//! Where threads are while they have a CPU: one that never sleeps is in no system call whenever `/proc` is asked, though it makes a
//! hundred thousand of them per second.

use perf_event::{Builder, SampleFlag, Sampler, data::Record, events::Software};
use std::{collections::BTreeMap, io, thread::sleep, time::Duration};

/// CPU time between two looks.
const PERIOD_NS: u64 = 1_000_000;
/// Bytes for the looks of one thread: two hundred of the deepest, more than there are in a tenth of a second.
const BUFFER_BYTES: usize = 1 << 18;
/// Calls of one stack.
const DEPTH: u16 = 64;

/// `PERF_CONTEXT_MAX` (`include/uapi/linux/perf_event.h`): numbers from here on are marks between the parts of a stack.
const MARKS: u64 = -4095i64 as u64;
/// `PERF_CONTEXT_KERNEL`.
const KERNEL: u64 = -128i64 as u64;
/// `PERF_CONTEXT_USER`.
const USER: u64 = -512i64 as u64;

/// One look at a thread: addresses, the innermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// In the kernel; empty while it ran its own code.
    pub kernel: Vec<u64>,
    /// In its own code.
    pub user: Vec<u64>,
}

/// Looks at these threads for a while, each millisecond of their CPU time. Those that can't be looked at have none.
pub fn looks(tids: &[u32], time: Duration) -> BTreeMap<u32, Vec<Look>> {
    let samplers: Vec<(u32, Sampler)> = tids.iter().filter_map(|&tid| Some((tid, start(tid).ok()?))).collect();
    if samplers.is_empty() {
        return BTreeMap::new();
    }
    sleep(time);
    let mut looks = BTreeMap::new();
    for (tid, mut sampler) in samplers {
        // What comes from now on is left.
        let _ = sampler.disable();
        let mut of_thread = Vec::new();
        while let Some(record) = sampler.next_record() {
            if let Ok(Record::Sample(sample)) = record.parse_record() {
                of_thread.extend(sample.callchain().map(split));
            }
        }
        looks.insert(tid, of_thread);
    }
    looks
}

fn start(tid: u32) -> io::Result<Sampler> {
    let mut builder = Builder::new(Software::CPU_CLOCK);
    builder.observe_pid(tid.cast_signed()).any_cpu().include_kernel();
    builder.sample(SampleFlag::CALLCHAIN).sample_period(PERIOD_NS).sample_max_stack(DEPTH);
    let mut sampler = builder.build()?.sampled(BUFFER_BYTES)?;
    sampler.enable()?;
    Ok(sampler)
}

fn split(chain: &[u64]) -> Look {
    let mut look = Look::default();
    let mut part = None;
    for &address in chain {
        match address {
            KERNEL | USER => part = Some(address),
            MARKS.. => part = None,
            _ if part == Some(KERNEL) => look.kernel.push(address),
            _ if part == Some(USER) => look.user.push(address),
            _ => {}
        }
    }
    look
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_stack_are_told_apart() {
        let hypervisor = -32i64 as u64;
        let look = split(&[KERNEL, 1, 2, USER, 3, hypervisor, 4]);
        assert_eq!(look, Look { kernel: vec![1, 2], user: vec![3] });
        assert_eq!(split(&[]), Look::default());
    }

    #[test]
    fn a_thread_that_does_not_exist_has_no_looks() {
        assert_eq!(looks(&[u32::MAX >> 1], Duration::ZERO), BTreeMap::new());
    }
}
