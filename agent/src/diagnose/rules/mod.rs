//! The rules, one per file. To add one, write its file and its line in [`all`].

mod block_io;
mod cache_state;
mod daemon;
mod exits;
mod failures;
mod guest_page_cache;
mod lost_events;
mod memory_elsewhere;
mod not_merged;
mod observer_effect;
mod run_queue;
mod spin_before_halt;
mod timer_tick;
mod unattributed;
mod written;

use super::Rule;

/// Every rule, in the order in which their findings are shown.
pub fn all() -> &'static [&'static dyn Rule] {
    &[
        &failures::Failures,
        &lost_events::LostEvents,
        &unattributed::Unattributed,
        &observer_effect::ObserverEffect,
        &cache_state::CacheState,
        &run_queue::RunQueue,
        &block_io::BlockIo,
        &daemon::Daemon,
        &exits::Exits,
        &timer_tick::TimerTick,
        &spin_before_halt::SpinBeforeHalt,
        &memory_elsewhere::MemoryElsewhere,
        &guest_page_cache::GuestPageCache,
        &not_merged::NotMerged,
        &written::Written,
    ]
}
