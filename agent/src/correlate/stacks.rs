//! Stacks that come again and again in a recording, each kept once.

use std::{collections::HashMap, num::NonZeroU32};

/// A stack, by its place in [`Stacks`], counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stack(NonZeroU32);

/// All stacks of a recording.
#[derive(Debug, Default, Clone)]
pub struct Stacks {
    all: Vec<WaitsAt>,
    known: HashMap<WaitsAt, Stack>,
}

/// Where in the kernel a task waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WaitsAt {
    /// Addresses of the calls, the innermost first.
    pub calls: Vec<u64>,
    /// Whether it is a lock that it waits for.
    pub is_lock: bool,
}

impl Stacks {
    /// The place of a stack, which is kept if it is new; return addresses, the innermost first, zeroes after the last.
    pub fn keep(&mut self, frames: &[u64], is_lock: bool) -> Stack {
        let calls = frames.iter().copied().take_while(|&frame| frame != 0).map(called_from).collect();
        let waits = WaitsAt { calls, is_lock };
        if let Some(&known) = self.known.get(&waits) {
            return known;
        }
        self.all.push(waits.clone());
        // A recording is bounded far below 2^32 records, and a stack was just added.
        let place = Stack(NonZeroU32::new(self.all.len() as u32).unwrap_or(NonZeroU32::MAX));
        self.known.insert(waits, place);
        place
    }

    /// Where that is; it must be one of these.
    pub fn get(&self, place: Stack) -> &WaitsAt {
        &self.all[place.0.get() as usize - 1]
    }

    /// All of them, in order of their places.
    pub fn all(&self) -> impl Iterator<Item = (Stack, &WaitsAt)> {
        let place = |number: usize| NonZeroU32::new(number as u32 + 1).map(Stack);
        self.all.iter().enumerate().filter_map(move |(number, waits)| Some((place(number)?, waits)))
    }
}

/// An address within the call that returns to this one: behind a call that never returns another function may begin.
pub fn called_from(return_address: u64) -> u64 {
    return_address.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_kept_once_and_without_the_room_after_it() {
        let mut stacks = Stacks::default();
        let (one, again) = (stacks.keep(&[16, 32, 0, 0], false), stacks.keep(&[16, 32], false));
        let (two, lock) = (stacks.keep(&[16, 0], false), stacks.keep(&[16, 32], true));
        assert_eq!(one, again);
        assert!(one != two && one != lock);
        assert_eq!(stacks.get(one), &WaitsAt { calls: vec![15, 31], is_lock: false });
        let lengths: Vec<_> = stacks.all().map(|(place, waits)| (place, waits.calls.len())).collect();
        assert_eq!(lengths, [(one, 2), (two, 1), (lock, 2)]);
    }
}
