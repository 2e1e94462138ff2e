//! The rules, one per file. To add one, write its file and its line in [`all`].

mod block_io;
mod busy_thread;
mod cache_state;
mod cpu_limit;
mod daemon;
mod doubtful_window;
mod exits;
mod failures;
mod file_copies;
mod guest_page_cache;
mod held_lock;
mod idle_cost;
mod initialisation;
mod lock_wait;
mod lost_events;
mod memory_elsewhere;
mod missing_events;
mod noisy_host;
mod not_merged;
mod observer_effect;
mod outside_wait;
mod page_faults;
mod pages_missing;
mod periodic_wakeups;
mod rcu_wait;
mod run_queue;
mod seccomp_filters;
mod self_exec;
mod serial_console;
mod shared_memory;
mod spin_before_halt;
mod spread;
mod throttled_window;
mod timer_tick;
mod timer_wait;
mod unattributed;
mod written;

use super::Rule;

/// Every rule, in the order in which their findings are shown.
pub fn all() -> &'static [&'static dyn Rule] {
    &[
        &failures::Failures,
        &lost_events::LostEvents,
        &missing_events::MissingEvents,
        &doubtful_window::DoubtfulWindow,
        &noisy_host::NoisyHost,
        &unattributed::Unattributed,
        &observer_effect::ObserverEffect,
        &cache_state::CacheState,
        &rcu_wait::RCU_WAIT,
        &lock_wait::LOCK_WAIT,
        &held_lock::HeldLock,
        &run_queue::RunQueue,
        &cpu_limit::CPU_LIMIT,
        &block_io::BlockIo,
        &timer_wait::TIMER_WAIT,
        &outside_wait::OUTSIDE_WAIT,
        &page_faults::PAGE_FAULTS,
        &daemon::Daemon,
        &self_exec::SelfExec,
        &initialisation::INITIALISATION,
        &seccomp_filters::SECCOMP_FILTERS,
        &exits::Exits,
        &serial_console::SerialConsole,
        &spread::Spread,
        &idle_cost::IdleCost,
        &throttled_window::ThrottledWindow,
        &busy_thread::BusyThread,
        &periodic_wakeups::PeriodicWakeups,
        &timer_tick::TimerTick,
        &spin_before_halt::SpinBeforeHalt,
        &pages_missing::PagesMissing,
        &memory_elsewhere::MemoryElsewhere,
        &guest_page_cache::GuestPageCache,
        &file_copies::FileCopies,
        &not_merged::NotMerged,
        &shared_memory::SharedMemory,
        &written::Written,
    ]
}
