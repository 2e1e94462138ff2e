//! Stacks that come again and again in a recording, each kept once.

use std::{collections::HashMap, num::NonZeroU32};

/// A stack, by its place in [`Stacks`], counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stack(NonZeroU32);

/// All stacks of a recording.
#[derive(Debug, Default, Clone)]
pub struct Stacks {
    all: Vec<Vec<u64>>,
    known: HashMap<Vec<u64>, Stack>,
}

impl Stacks {
    /// The place of a stack, which is kept if it is new; return addresses, the innermost first, zeroes after the last.
    pub fn keep(&mut self, frames: &[u64]) -> Stack {
        let frames: Vec<u64> = frames.iter().copied().take_while(|&frame| frame != 0).map(called_from).collect();
        if let Some(&known) = self.known.get(&frames) {
            return known;
        }
        self.all.push(frames.clone());
        // A recording is bounded far below 2^32 records, and a stack was just added.
        let place = Stack(NonZeroU32::new(self.all.len() as u32).unwrap_or(NonZeroU32::MAX));
        self.known.insert(frames, place);
        place
    }

    /// Addresses of the calls, the innermost first; it must be one of these.
    pub fn get(&self, place: Stack) -> &[u64] {
        &self.all[place.0.get() as usize - 1]
    }

    /// All of them, in order of their places.
    pub fn all(&self) -> impl Iterator<Item = (Stack, &[u64])> {
        let place = |number: usize| NonZeroU32::new(number as u32 + 1).map(Stack);
        self.all.iter().enumerate().filter_map(move |(number, frames)| Some((place(number)?, frames.as_slice())))
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
        let (one, two, again) = (stacks.keep(&[16, 32, 0, 0]), stacks.keep(&[16, 0]), stacks.keep(&[16, 32]));
        assert_eq!(one, again);
        assert_ne!(one, two);
        assert_eq!(stacks.get(one), [15, 31]);
        assert_eq!(stacks.all().map(|(place, frames)| (place, frames.len())).collect::<Vec<_>>(), [(one, 2), (two, 1)]);
    }
}
