//! Counts pages that hold the same: which of their frames are one already, which could be, and how many KSM would free.
//!
//! What counts is the frame, and who uses it. That a process and its forked child have one frame together does not make that frame
//! one with its equals elsewhere: KSM merges it as it merges any other, and each of its mappings takes a place among those that KSM
//! gives the frame that stays.

use super::{
    classify::{Bin, Class, Classified, Count, Known, Owner, Reason, State},
    entry::{Entry, Flags},
};
use crate::measure::memory::mapping::Region;
use std::collections::{BTreeMap, BTreeSet};

/// All mappings of one frame; one page alone where its frame is not known.
#[derive(Clone, Copy)]
struct Frame<'a>(&'a [Entry]);

impl Frame<'_> {
    fn number(self) -> u64 {
        self.0[0].frame()
    }

    fn any(self, is: fn(Flags) -> bool) -> bool {
        self.0.iter().any(|entry| is(entry.flags()))
    }

    fn is_ksm(self) -> bool {
        self.any(|flags| flags.is_ksm)
    }

    fn is_page_cache(self) -> bool {
        self.any(|flags| flags.is_page_cache)
    }

    /// Whether KSM can merge it: anonymous, in private mappings.
    fn is_for_ksm(self) -> bool {
        !self.any(|flags| flags.is_page_cache || flags.is_shared_mapping || flags.is_hugetlb)
    }

    /// Whether it has several users, among those that were looked at or elsewhere.
    fn has_several_users(self) -> bool {
        self.0.len() > 1 || self.any(|flags| !flags.is_exclusive)
    }

    /// Whether somebody uses it who was not looked at: merging it here would not free it. Not known is taken for yes.
    fn has_users_elsewhere(self, known: &Known<'_>) -> bool {
        let seen = self.0.len() as u64;
        self.any(|flags| !flags.is_exclusive) && (known.users)(self.number()).is_none_or(|users| users > seen)
    }
}

/// The frames of pages that are sorted by content and frame.
fn frames_of(group: &[Entry]) -> impl Iterator<Item = Frame<'_>> {
    group.chunk_by(|one, other| one.frame() == other.frame() && one.frame() != 0).map(Frame)
}

/// Counts pages with the same content, sorted by frame.
pub(super) fn count_group(group: &[Entry], known: &Known<'_>, into: &mut Classified) {
    let holders = Holders::of(group, known);
    let copies = FileCopies::of(group, known);
    let mut merging = Merging::of(group, known);
    into.file_copies += copies.spare();
    let mut told = BTreeSet::new();
    for frame in frames_of(group) {
        into.ksm_frames += u64::from(frame.is_ksm());
        into.for_ksm_frames += u64::from(frame.is_for_ksm());
        let mut freed = merging.frees(frame, known);
        let mut counted = BTreeSet::new();
        for entry in frame.0 {
            let Owner::Instance(instance) = known.owner(entry) else { continue };
            let flags = entry.flags();
            let class = holders.class(instance);
            let (state, reason) = if flags.is_ksm {
                (State::Already, None)
            } else if frame.is_page_cache() {
                if copies.has_another(frame, known) {
                    (State::Could, Some(Reason::FileCopy))
                } else {
                    (State::Already, None)
                }
            } else if frame.has_several_users() && (holders.frames == 1 || frame.number() == 0) {
                (State::Already, None)
            } else {
                why_not(class, flags)
            };
            let (source, region, is_inferred) = (entry.source(), flags.region, entry.frame() == 0);
            let bin = Bin { instance, source, region, class, state, reason, is_inferred };
            let count: &mut Count = into.counts.entry(bin).or_default();
            count.mappings += 1;
            count.ksm += u64::from(flags.is_ksm);
            if counted.insert(instance) {
                count.pages += 1;
                count.distinct += u64::from(told.insert(bin));
                // Once, however many use it.
                count.freeable += u64::from(std::mem::take(&mut freed));
            }
        }
    }
}

/// Who holds a content.
struct Holders {
    is_zero: bool,
    in_file: bool,
    frames: u64,
    /// Frames of each instance; a frame that is not known is one of its own.
    of_instances: BTreeMap<usize, u64>,
}

impl Holders {
    fn of(group: &[Entry], known: &Known<'_>) -> Self {
        let is_zero = group[0].content().is_zero();
        let mut holders = Self { is_zero, in_file: false, frames: 0, of_instances: BTreeMap::new() };
        for frame in frames_of(group) {
            holders.frames += 1;
            holders.in_file |= frame.is_page_cache();
            let mut here = BTreeSet::new();
            for entry in frame.0 {
                if let Owner::Instance(instance) = known.owner(entry) {
                    here.insert(instance);
                }
            }
            for instance in here {
                *holders.of_instances.entry(instance).or_default() += 1;
            }
        }
        holders
    }

    fn class(&self, instance: usize) -> Class {
        match () {
            () if self.is_zero => Class::Zero,
            () if self.in_file => Class::SameAsFile,
            () if self.of_instances.len() > 1 => Class::SameAcross,
            () if self.of_instances.get(&instance).is_some_and(|frames| *frames > 1) => Class::SameWithin,
            () => Class::Unique,
        }
    }
}

/// Frames of the page cache by their places in their files. One file has one frame for each of its places, so that two frames with
/// the same content at the same place are of a file and of its copy. What a file itself has at two places is no copy of it.
struct FileCopies(BTreeMap<u64, u64>);

impl FileCopies {
    fn of(group: &[Entry], known: &Known<'_>) -> Self {
        let mut at = BTreeMap::new();
        // Without knowing frames, two mappings of one page would be taken for two pages.
        let is_known = |frame: &Frame| frame.number() != 0 && frame.is_page_cache();
        if !group[0].content().is_zero() && frames_of(group).filter(is_known).nth(1).is_some() {
            for place in frames_of(group).filter(is_known).filter_map(|frame| place_in_file(frame, known)) {
                *at.entry(place).or_default() += 1;
            }
        }
        Self(at)
    }

    /// Frames beyond the first of each place.
    fn spare(&self) -> u64 {
        self.0.values().map(|frames| frames - 1).sum()
    }

    fn has_another(&self, frame: Frame<'_>, known: &Known<'_>) -> bool {
        !self.0.is_empty()
            && place_in_file(frame, known).is_some_and(|place| self.0.get(&place).is_some_and(|frames| *frames > 1))
    }
}

fn place_in_file(frame: Frame<'_>, known: &Known<'_>) -> Option<u64> {
    frame.0.iter().filter(|entry| entry.flags().is_page_cache).find_map(|entry| (known.place_in_file)(entry))
}

/// What KSM would do with the frames of a group.
struct Merging {
    /// Frames that stay for the others, of those that come.
    stay: u64,
    is_worth_it: bool,
}

impl Merging {
    fn of(group: &[Entry], known: &Known<'_>) -> Self {
        let (mut frames, mut mappings, mut merged_frames, mut merged_mappings) = (0, 0, 0, 0);
        // A frame alone has nothing to be merged with, and need not be asked about.
        let is_worth_it = frames_of(group).nth(1).is_some();
        for frame in frames_of(group).filter(|_| is_worth_it) {
            if frame.is_ksm() {
                merged_frames += 1;
                merged_mappings += frame.0.len() as u64;
            } else if is_freed(frame, known) {
                frames += 1;
                mappings += frame.0.len() as u64;
            }
        }
        let needed: u64 = (mappings + merged_mappings).div_ceil(known.most_sharing.max(1));
        Self { stay: needed.saturating_sub(merged_frames).min(frames), is_worth_it }
    }

    /// Whether this frame, the next of the group, is freed.
    fn frees(&mut self, frame: Frame<'_>, known: &Known<'_>) -> bool {
        if !self.is_worth_it || frame.is_ksm() || !is_freed(frame, known) {
            return false;
        }
        let stays = self.stay > 0;
        self.stay = self.stay.saturating_sub(1);
        !stays
    }
}

/// Whether nobody has a frame any more when all its mappings here are merged with others.
fn is_freed(frame: Frame<'_>, known: &Known<'_>) -> bool {
    frame.is_for_ksm() && !frame.has_users_elsewhere(known)
}

/// Whether a page that is not shared with its equals could be, and why it is not.
fn why_not(class: Class, flags: Flags) -> (State, Option<Reason>) {
    if class == Class::Unique {
        let written = flags.is_private_file;
        return (State::CouldNot, Some(if written { Reason::Written } else { Reason::Unique }));
    }
    let (state, reason) = match () {
        () if flags.is_hugetlb => (State::CouldNot, Reason::Hugetlb),
        () if flags.is_shared_mapping => (State::CouldNot, Reason::SharedMapping),
        () if class == Class::SameAsFile && flags.region == Region::Guest => (State::Could, Reason::GuestPageCache),
        () if class == Class::SameAsFile && flags.is_private_file => (State::Could, Reason::PrivateFileCopy),
        () if flags.is_huge => (State::Could, Reason::HugePage),
        () if flags.is_mergeable => (State::Could, Reason::NotYetMerged),
        () => (State::Could, Reason::NotMergeable),
    };
    (state, Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::memory::pages::{classify::classify, entry::Hasher};

    const PLAIN: Flags = Flags {
        region: Region::Anonymous,
        is_page_cache: false,
        is_private_file: false,
        is_shared_mapping: false,
        is_exclusive: true,
        is_mergeable: false,
        is_ksm: false,
        is_huge: false,
        is_hugetlb: false,
    };

    /// A frame that a process and its forked child have together.
    const FORKED: Flags = Flags { is_exclusive: false, ..PLAIN };

    /// A page of a file in the page cache, mapped.
    const CACHED: Flags =
        Flags { is_page_cache: true, is_private_file: true, is_exclusive: false, region: Region::File, ..PLAIN };

    /// Sorts and counts pages: number of the source, content, frame, flags. Sources 0 and 1 are instances 0 and 1, 2 is a second
    /// process of instance 0, 3 and 4 are files; the number of a page is its place. Frames from 1000 on have a user elsewhere.
    fn classified(pages: &[(usize, u8, u64, Flags)]) -> Classified {
        let hasher = Hasher::new(4096);
        let owners = [Owner::Instance(0), Owner::Instance(1), Owner::Instance(0), Owner::File, Owner::File];
        let mut places: BTreeMap<usize, u64> = BTreeMap::new();
        let mut entries: Vec<Entry> = pages
            .iter()
            .map(|&(source, byte, frame, flags)| {
                let place = places.entry(source).or_default();
                *place += 1;
                Entry::new(hasher.of(&[byte; 4096]), frame, flags, source, *place - 1)
            })
            .collect();
        let seen = |frame: u64| pages.iter().filter(|page| page.2 == frame).count() as u64;
        let known = Known {
            owners: &owners,
            most_sharing: 256,
            users: &|frame| Some(seen(frame) + u64::from(frame >= 1000)),
            place_in_file: &|entry| Some(entry.page()),
        };
        classify(&mut entries, &known)
    }

    fn counted(pages: &[(usize, u8, u64, Flags)]) -> BTreeMap<(usize, Class, State, Option<Reason>), Count> {
        let mut sums: BTreeMap<_, Count> = BTreeMap::new();
        for (bin, count) in classified(pages).counts {
            let sum = sums.entry((bin.instance, bin.class, bin.state, bin.reason)).or_default();
            sum.pages += count.pages;
            sum.mappings += count.mappings;
            sum.distinct += count.distinct;
            sum.ksm += count.ksm;
            sum.freeable += count.freeable;
        }
        sums
    }

    fn count(pages: u64, ksm: u64, freeable: u64) -> Count {
        // One content each, and each page mapped once.
        Count { pages, mappings: pages, distinct: 1, ksm, freeable }
    }

    /// Frees of all instances together.
    fn freeable(pages: &[(usize, u8, u64, Flags)]) -> u64 {
        counted(pages).values().map(|count| count.freeable).sum()
    }

    #[test]
    fn each_class_is_told_from_the_others() {
        use Reason::{NotMergeable, Unique};
        use State::{Could, CouldNot};
        let found = counted(&[
            (0, 0, 10, PLAIN),
            (0, 1, 11, PLAIN),
            (0, 1, 12, PLAIN),
            (0, 2, 13, PLAIN),
            (1, 2, 14, PLAIN),
            (1, 3, 15, PLAIN),
            (1, 4, 16, PLAIN),
            (3, 4, 17, CACHED),
        ]);
        let expected = BTreeMap::from([
            ((0, Class::Zero, Could, Some(NotMergeable)), count(1, 0, 0)),
            ((0, Class::SameWithin, Could, Some(NotMergeable)), count(2, 0, 1)),
            ((0, Class::SameAcross, Could, Some(NotMergeable)), count(1, 0, 0)),
            ((1, Class::SameAcross, Could, Some(NotMergeable)), count(1, 0, 1)),
            ((1, Class::Unique, CouldNot, Some(Unique)), count(1, 0, 0)),
            ((1, Class::SameAsFile, Could, Some(NotMergeable)), count(1, 0, 0)),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn one_frame_of_several_is_shared_and_counts_once_in_an_instance() {
        let found =
            counted(&[(0, 1, 11, PLAIN), (2, 1, 11, PLAIN), (1, 1, 11, PLAIN), (0, 2, 12, PLAIN), (2, 2, 12, PLAIN)]);
        let expected = BTreeMap::from([
            ((0, Class::SameAcross, State::Already, None), Count { mappings: 2, ..count(1, 0, 0) }),
            ((1, Class::SameAcross, State::Already, None), count(1, 0, 0)),
            ((0, Class::Unique, State::Already, None), Count { mappings: 2, ..count(1, 0, 0) }),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn reasons_are_told_from_each_other() {
        let guest = Flags { region: Region::Guest, ..PLAIN };
        let private_file = Flags { is_private_file: true, region: Region::File, ..PLAIN };
        let found = counted(&[
            (3, 1, 10, CACHED),
            (0, 1, 11, guest),
            (0, 1, 12, private_file),
            (0, 2, 13, private_file),
            (0, 3, 14, Flags { is_huge: true, ..PLAIN }),
            (0, 3, 15, Flags { is_mergeable: true, ..PLAIN }),
            (0, 3, 16, Flags { is_shared_mapping: true, ..PLAIN }),
            (0, 3, 17, Flags { is_hugetlb: true, ..PLAIN }),
        ]);
        let pages = |class, state, reason| found[&(0, class, state, Some(reason))].pages;
        assert_eq!(pages(Class::SameAsFile, State::Could, Reason::GuestPageCache), 1);
        assert_eq!(pages(Class::SameAsFile, State::Could, Reason::PrivateFileCopy), 1);
        assert_eq!(pages(Class::Unique, State::CouldNot, Reason::Written), 1);
        assert_eq!(pages(Class::SameWithin, State::Could, Reason::HugePage), 1);
        assert_eq!(pages(Class::SameWithin, State::Could, Reason::NotYetMerged), 1);
        assert_eq!(pages(Class::SameWithin, State::CouldNot, Reason::SharedMapping), 1);
        assert_eq!(pages(Class::SameWithin, State::CouldNot, Reason::Hugetlb), 1);
        assert_eq!(found.values().map(|count| count.freeable).sum::<u64>(), 2, "of 11 and 12, and of 14 and 15");
    }

    #[test]
    fn what_ksm_would_free_allows_for_frames_that_stay() {
        let ksm = Flags { is_ksm: true, is_exclusive: false, ..PLAIN };
        let found = counted(&[(0, 1, 10, ksm), (1, 1, 10, ksm), (0, 1, 11, PLAIN)]);
        assert_eq!(found[&(0, Class::SameAcross, State::Already, None)], count(1, 1, 0));
        assert_eq!(found[&(0, Class::SameAcross, State::Could, Some(Reason::NotMergeable))], count(1, 0, 1));
        // One frame has at most 256 users: 300 pages take two.
        let many: Vec<_> = (0..300).map(|frame| (0, 1, 10 + frame, PLAIN)).collect();
        assert_eq!(counted(&many).into_values().next(), Some(count(300, 0, 298)));
    }
    #[test]
    fn a_frame_that_a_fork_shares_is_not_shared_with_its_equals() {
        // Two frames, each of parent and child: one of them can go.
        let both = [(0, 1, 11, FORKED), (2, 1, 11, FORKED), (0, 1, 12, FORKED), (2, 1, 12, FORKED)];
        let could = (0, Class::SameWithin, State::Could, Some(Reason::NotMergeable));
        assert_eq!(counted(&both), BTreeMap::from([(could, Count { mappings: 4, ..count(2, 0, 1) })]));
        // One that both have, and one that the child has written anew.
        let rewritten = [(0, 1, 11, FORKED), (2, 1, 11, FORKED), (2, 1, 12, PLAIN)];
        assert_eq!(freeable(&rewritten), 1);
    }

    #[test]
    fn what_ksm_has_freed_is_missing_among_the_frames_though_more_mappings_are_merged() {
        // Two frames of parent and child, and after they were merged one: four mappings are merged, and one frame is free.
        let before =
            [(0, 1, 11, FORKED), (2, 1, 11, FORKED), (0, 1, 12, FORKED), (2, 1, 12, FORKED), (3, 1, 13, CACHED)];
        let ksm = Flags { is_ksm: true, ..FORKED };
        let after = [(0, 1, 11, ksm), (2, 1, 11, ksm), (0, 1, 11, ksm), (2, 1, 11, ksm), (3, 1, 13, CACHED)];
        let frames = [&before, &after].map(|pages| classified(pages).for_ksm_frames);
        assert_eq!((frames, freeable(&before)), ([2, 1], 1));
    }

    #[test]
    fn each_mapping_of_a_frame_takes_a_place_among_those_that_one_frame_can_have() {
        // 200 frames that parent and child have both: 400 mappings take two frames.
        let forked: Vec<_> =
            (0..200).flat_map(|frame| [(0, 1, 10 + frame, FORKED), (2, 1, 10 + frame, FORKED)]).collect();
        assert_eq!(freeable(&forked), 198);
        // More mappings of one frame than KSM allows are no reason to make more of it.
        let many: Vec<_> = (0..600).map(|_| (0, 1, 10, FORKED)).chain([(0, 1, 11, PLAIN)]).collect();
        assert_eq!(freeable(&many), 0);
    }

    #[test]
    fn a_frame_that_somebody_elsewhere_has_too_is_not_freed() {
        let elsewhere = [(0, 1, 1000, FORKED), (0, 1, 12, PLAIN), (0, 1, 13, PLAIN)];
        assert_eq!(freeable(&elsewhere), 1, "of 12 and 13");
        let could = &counted(&elsewhere)[&(0, Class::SameWithin, State::Could, Some(Reason::NotMergeable))];
        assert_eq!(could.pages, 3);
    }

    #[test]
    fn the_same_page_of_two_copies_of_a_file_is_equal_and_not_shared() {
        // Each instance maps a copy of its own: 11 and 12 are the first page of each.
        let copies = classified(&[(0, 1, 11, CACHED), (1, 1, 12, CACHED), (0, 2, 13, CACHED), (1, 2, 13, CACHED)]);
        let pages = |state, reason| {
            let is = |bin: &&Bin| (bin.class, bin.state, bin.reason) == (Class::SameAsFile, state, reason);
            copies.counts.iter().filter(|(bin, _)| is(bin)).map(|(_, count)| count.pages).sum::<u64>()
        };
        assert_eq!(pages(State::Could, Some(Reason::FileCopy)), 2);
        assert_eq!(pages(State::Already, None), 2, "both map 13");
        assert_eq!(copies.file_copies, 1);
        assert_eq!(copies.counts.values().map(|count| count.freeable).sum::<u64>(), 0, "KSM merges no files");
    }

    #[test]
    fn what_a_file_has_twice_and_what_is_mapped_twice_is_no_copy() {
        // Pages 0 and 1 of one file, and the frame of the first once more as it was read.
        let within = classified(&[(3, 1, 11, CACHED), (3, 1, 12, CACHED), (0, 1, 11, CACHED)]);
        assert_eq!(within.file_copies, 0);
        // Frames that are not known might be one.
        assert_eq!(classified(&[(0, 1, 0, CACHED), (1, 1, 0, CACHED)]).file_copies, 0);
    }

    #[test]
    fn copies_that_are_only_read_count_too() {
        let read = [(3, 1, 11, CACHED), (4, 1, 12, CACHED), (3, 2, 13, CACHED), (4, 2, 14, CACHED)];
        let found = classified(&read);
        assert_eq!((found.file_copies, found.counts.len()), (2, 0));
    }

    #[test]
    fn memory_that_others_write_to_can_not_be_merged_however_many_have_it() {
        let shared = Flags { is_shared_mapping: true, is_exclusive: false, region: Region::Shmem, ..PLAIN };
        // A VMM and its backend map the same guest memory, in which two pages are equal.
        let found = counted(&[(0, 1, 11, shared), (2, 1, 11, shared), (0, 1, 12, shared), (2, 1, 12, shared)]);
        let could_not = (0, Class::SameWithin, State::CouldNot, Some(Reason::SharedMapping));
        assert_eq!(found, BTreeMap::from([(could_not, Count { mappings: 4, ..count(2, 0, 0) })]));
    }
}
