//! Pages that nothing equals, but that hold what another page holds at another place: the same file loaded at another alignment, say.
//! Merging works page by page and can't find these.
//!
//! A rolling hash marks places by the bytes before them, wherever in a page they are. What marks the same place in two pages is
//! compared byte by byte over the whole overlap. Over a sample: finding every such page would take an index of all.

use super::{
    entry::{Entry, Fingerprint, Hasher},
    reader::Reader,
};
use gearhash::Hasher as Gear;
use rustix::param::page_size;
use std::collections::HashMap;

/// Pages among which the same is looked for: 64 MiB of those of 4 KiB.
const INDEXED: usize = 16_384;
/// Pages for which it is looked for.
const SAMPLED: usize = 2048;
/// Bytes that the rolling hash looks back at.
const WINDOW: usize = 64;
/// One place of so many is marked: some in each page.
const MASK: u64 = 0x1ff << 55;
/// The least overlap, as a part of the page: less may be a header that many things have.
const LEAST_PART: usize = 4;
/// Candidates that are compared for one page.
const COMPARED: usize = 8;

/// How much of a sample is shifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shifted {
    /// Pages that nothing equals.
    pub unique: u64,
    /// Those of them that were looked at.
    pub sampled: u64,
    /// Those of these whose content is somewhere else at another place.
    pub shifted: u64,
}

impl Shifted {
    /// Pages that are shifted, estimated from the sample.
    pub fn estimate(&self) -> u64 {
        (self.shifted * self.unique).checked_div(self.sampled).unwrap_or(0)
    }
}

/// A marked place.
#[derive(Clone, Copy)]
struct Place {
    page: usize,
    offset: usize,
}

/// Looks for shifted content among the pages of processes that nothing equals. The entries are sorted; `pids` are the numbers of
/// the first sources, which are processes.
pub fn find(entries: &[Entry], pids: &[i32]) -> Shifted {
    let is_of_process = |entry: &Entry| entry.source() < pids.len() && !entry.flags().is_page_cache;
    // Gone through twice: a list of them would take a third of what the entries take.
    let unique = || {
        let groups = entries.chunk_by(|one, other| one.content() == other.content());
        groups.filter_map(|group| group.first().filter(|entry| group.len() == 1 && is_of_process(entry)))
    };
    let count = unique().count();
    let indexed: Vec<&Entry> = unique().step_by(count.div_ceil(INDEXED).max(1)).collect();
    let size = page_size();
    let read = |entry: &Entry| {
        let mut content = vec![0; size];
        let pages = Reader::new(pids[entry.source()]).read(entry.page(), &mut content, true);
        pages.is_ok_and(|pages| pages == 1).then_some(content)
    };
    let hasher = Hasher::new(size);
    let mut places: HashMap<_, Vec<Place>> = HashMap::new();
    let mut marks: Vec<Vec<_>> = Vec::with_capacity(indexed.len());
    for (page, entry) in indexed.iter().enumerate() {
        let found = read(entry).map_or_else(Vec::new, |content| marked(&content, &hasher));
        for &(offset, window) in &found {
            let known = places.entry(window).or_default();
            if known.len() < COMPARED {
                known.push(Place { page, offset });
            }
        }
        marks.push(found);
    }
    let mut result = Shifted { unique: count as u64, ..Shifted::default() };
    for page in (0..indexed.len()).step_by(indexed.len().div_ceil(SAMPLED).max(1)) {
        let Some(content) = read(indexed[page]) else { continue };
        result.sampled += 1;
        let candidates = marks[page]
            .iter()
            .flat_map(|(offset, window)| places.get(window).into_iter().flatten().map(move |place| (*offset, *place)));
        let elsewhere =
            candidates.filter(|(offset, place)| place.page != page && place.offset != *offset).take(COMPARED);
        let is_shifted = elsewhere.map(|(offset, place)| (offset, place.offset, read(indexed[place.page]))).any(
            |(offset, other_offset, other)| {
                other.is_some_and(|other| overlap_equals(&content, offset, &other, other_offset))
            },
        );
        result.shifted += u64::from(is_shifted);
    }
    result
}

/// The marked places of a page, each with what is before it.
fn marked(content: &[u8], hasher: &Hasher) -> Vec<(usize, Fingerprint)> {
    let mut gear = Gear::default();
    let mut found = Vec::new();
    let mut place = 0;
    while let Some(next) = gear.next_match(&content[place..], MASK) {
        place += next;
        let Some(window) = place.checked_sub(WINDOW).map(|start| &content[start..place]) else { continue };
        // What has only one value is everywhere the same, and everywhere else as well.
        if window.iter().any(|byte| *byte != window[0]) {
            found.push((place, hasher.of(window)));
        }
    }
    found
}

/// Whether two pages are equal where they overlap when these places are laid upon each other, and overlap enough.
fn overlap_equals(one: &[u8], place: usize, other: &[u8], other_place: usize) -> bool {
    let before = place.min(other_place);
    let after = (one.len() - place).min(other.len() - other_place);
    before + after >= one.len() / LEAST_PART
        && one[place - before..place + after] == other[other_place - before..other_place + after]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(next).collect()
    }

    #[test]
    fn the_same_places_are_marked_wherever_they_are() {
        let (noise, hasher) = (noise(5000), Hasher::new(4096));
        let (one, other) = (marked(&noise[..4096], &hasher), marked(&noise[700..4796], &hasher));
        let both = one.iter().filter(|(place, window)| other.contains(&(place.wrapping_sub(700), *window)));
        assert!(both.count() >= 3, "{} and {} places", one.len(), other.len());
        assert!(marked(&[7; 4096], &hasher).is_empty());
    }

    #[test]
    fn only_an_overlap_that_is_equal_throughout_counts() {
        let noise = noise(8192);
        assert!(overlap_equals(&noise[..4096], 1000, &noise[500..4596], 500));
        assert!(!overlap_equals(&noise[..4096], 1000, &noise[500..4596], 501));
        assert!(!overlap_equals(&noise[..4096], 3900, &noise[3800..7896], 100), "too little of it");
    }
}
