//! How long frames wait until the VMM takes them from its tap device.
//!
//! A tap device hands frames out in the order in which they came, one per system call: the time of each is kept in a queue by
//! the program on the host's end of the sandbox's device, and taken out by the VMM's system calls. A call that finds nothing
//! says that the queue is empty, whatever became of its frames.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, macros::map, maps::HashMap};
use sandscope_ebpf::{
    kernel::now_ns,
    map::{Membership, NetQueue, QUEUE_FRAMES},
};

/// By scope. Elements are large, and user space alone adds and removes them: memory is taken for those that are there.
#[map]
static NET_QUEUES: HashMap<u32, NetQueue> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// `EAGAIN` on all architectures.
const EAGAIN: i64 = 11;

#[inline(always)]
fn queue(scope: u16) -> Option<&'static mut NetQueue> {
    // SAFETY: the map gives a valid pointer to integers. Two CPUs that send at the same instant may take one number, so that one
    // frame too few waits until a call finds the queue empty.
    NET_QUEUES.get_ptr_mut(u32::from(scope)).map(|queue| unsafe { &mut *queue })
}

/// A frame comes to a sandbox.
#[inline(always)]
pub fn came(scope: u16) {
    let Some(queue) = queue(scope) else { return };
    let number = queue.came;
    queue.came = number.wrapping_add(1);
    queue.came_ns[number as usize % QUEUE_FRAMES] = now_ns();
}

/// A system call that reads from a tap device returns.
#[inline(always)]
pub fn read(membership: Membership, result: i64) {
    let Some(queue) = queue(membership.scope()) else { return };
    let waiting = queue.came.wrapping_sub(queue.gone);
    if result == -EAGAIN {
        queue.unseen += waiting;
        queue.gone = queue.gone.wrapping_add(waiting);
        return;
    }
    // Without one that came, it is a frame of the device's own network namespace.
    if result <= 0 || waiting == 0 {
        return;
    }
    let lost = waiting.saturating_sub(QUEUE_FRAMES as u64);
    queue.unseen += lost;
    let number = queue.gone.wrapping_add(lost);
    let wait_ns = now_ns().saturating_sub(queue.came_ns[number as usize % QUEUE_FRAMES]);
    queue.gone = number.wrapping_add(1);
    queue.waits.record(wait_ns);
    queue.waits_ns += wait_ns;
}
