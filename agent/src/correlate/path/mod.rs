//! The critical path of a start: what each nanosecond from the launch to the first good response was spent on.
//!
//! It is walked backwards. A thread that runs, or waits for a CPU, is on the path; one that waited hands over to what ended its wait:
//! the thread that woke it, the sender of a packet, its parent at its birth, a child at its end. Where nobody of the sandbox ended the
//! wait, the wait itself is on the path: for a timer, a disk, an RCU grace period, somebody outside. So background threads, whatever
//! they do meanwhile, are not on it, and every nanosecond has exactly one [`Element`]. docs/account.md shows it with a picture.
//!
//! ```text
//! histories ─► spans ─► graph (what ended each wait) ─► walk ─► elements
//!                                                    ├► replay ─► what an element's absence would save
//!                                                    └► held locks ─► who of the sandbox kept whom waiting
//! ```

mod charge;
mod cpus;
mod doings;
mod graph;
mod held_locks;
mod kernel_wait;
mod packets;
mod polls;
mod replay;
mod requests;
mod walk;

pub use charge::{Category, Charge, Detail};
pub use graph::Graph;
pub use held_locks::{Held, HeldLock};
pub use kernel_wait::{asked_by, folded};
pub use replay::Saving;
pub use walk::Element;

#[cfg(test)]
mod polls_tests;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
