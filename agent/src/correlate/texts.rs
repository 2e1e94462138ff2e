//! Words that come again and again in a recording (names, roles, objects), each kept once: a start has tens of thousands of stretches
//! and a few dozen words.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

/// A word, by its place in [`Texts`], counted from 1: there are as many optional ones as stretches of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(NonZeroU32);

/// All words of a recording.
#[derive(Debug, Default, Clone)]
pub struct Texts {
    all: Vec<Arc<str>>,
    known: HashMap<Arc<str>, Text>,
}

impl Texts {
    /// The place of a word, which is kept if it is new.
    pub fn keep(&mut self, word: &str) -> Text {
        if let Some(&known) = self.known.get(word) {
            return known;
        }
        let word: Arc<str> = word.into();
        self.all.push(Arc::clone(&word));
        // A recording is bounded far below 2^32 records, and a word was just added.
        let place = Text(NonZeroU32::new(self.all.len() as u32).unwrap_or(NonZeroU32::MAX));
        self.known.insert(word, place);
        place
    }

    /// The place of a word, if it is kept.
    pub fn find(&self, word: &str) -> Option<Text> {
        self.known.get(word).copied()
    }

    /// The word; it must be of these.
    pub fn get(&self, place: Text) -> &str {
        &self.all[place.0.get() as usize - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_once() {
        let mut texts = Texts::default();
        let (one, two, again) = (texts.keep("runc"), texts.keep("sentry"), texts.keep("runc"));
        assert_eq!(one, again);
        assert_ne!(one, two);
        assert_eq!((texts.get(one), texts.find("gofer"), texts.find("sentry")), ("runc", None, Some(two)));
    }
}
