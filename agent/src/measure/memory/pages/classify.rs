//! Sorts pages by their content and tells of each what could become of it. Pure: pages go in, counts come out.

use super::entry::{Entry, Flags};
use crate::measure::memory::mapping::Region;
use std::collections::{BTreeMap, BTreeSet};

/// What else has the same content, the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing but zeros.
    Zero,
    /// A page of a file in the host's page cache, or is one.
    SameAsFile,
    /// A page of another instance.
    SameAcross,
    /// Another page of the instance.
    SameWithin,
    /// Nothing.
    Unique,
    /// Not known: the page could not be read.
    Unread,
}

impl Class {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::SameAsFile => "same_as_file",
            Self::SameAcross => "same_across",
            Self::SameWithin => "same_within",
            Self::Unique => "unique",
            Self::Unread => "unread",
        }
    }
}

/// Whether a page is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its frame has more than one user, or is the page cache's.
    Already,
    /// Another page holds the same, and the two could be one.
    Could,
    /// It could not.
    CouldNot,
}

impl State {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Already => "already",
            Self::Could => "could",
            Self::CouldNot => "could_not",
        }
    }
}

/// Why a page is not shared, the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Nothing holds the same.
    Unique,
    /// The instance has written to its private copy of a file, such as the memory of a snapshot, which now holds something else.
    Written,
    /// A private copy of a page of a file, which holds what the file holds.
    PrivateFileCopy,
    /// A page in a guest that holds what a file holds that the host has in its page cache: both cache it.
    GuestPageCache,
    /// A part of a huge page: that would have to be split first.
    HugePage,
    /// Of hugetlbfs, or of a mapping whose writes others see: nothing merges these.
    SharedMapping,
    /// KSM was not asked to merge its mapping.
    NotMergeable,
    /// KSM was asked, but has not merged it.
    NotYetMerged,
    /// The page could not be read.
    Unreadable,
}

impl Reason {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Written => "written",
            Self::PrivateFileCopy => "private_file_copy",
            Self::GuestPageCache => "guest_page_cache",
            Self::HugePage => "huge_page",
            Self::SharedMapping => "shared_mapping",
            Self::NotMergeable => "not_mergeable",
            Self::NotYetMerged => "not_yet_merged",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Where pages are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bin {
    /// Number of the instance.
    pub instance: usize,
    /// Process or file of which the page is: its number.
    pub source: usize,
    /// Kind of memory.
    pub region: Region,
    /// What else holds the same.
    pub class: Class,
    /// Whether it is shared.
    pub state: State,
    /// Why it is not; `None` when it is.
    pub reason: Option<Reason>,
    /// Whether the state is inferred, since the frame is not known.
    pub is_inferred: bool,
}

/// How many pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Pages. One frame counts once in an instance, however often that maps it.
    pub pages: u64,
    /// Different contents among them.
    pub distinct: u64,
    /// Mappings of frames that KSM has merged: as many as the kernel counts as merged of the process.
    pub ksm: u64,
    /// Frames that KSM would free if it merged all that it could.
    pub freeable: u64,
}

/// What each source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process of the instance with this number.
    Instance(usize),
    /// A file.
    File,
}

/// Counts pages, and the frames that KSM has merged. Sorts the pages in place, so that those with the same content are
/// neighbours. `most_sharing` is how many mappings KSM gives a frame at most.
pub fn classify(entries: &mut [Entry], owners: &[Owner], most_sharing: u64) -> (BTreeMap<Bin, Count>, u64) {
    entries.sort_unstable();
    let (mut counts, mut ksm_frames) = (BTreeMap::new(), 0);
    for group in entries.chunk_by(|one, other| one.content() == other.content()) {
        ksm_frames += count_group(group, owners, most_sharing, &mut counts);
    }
    (counts, ksm_frames)
}

/// Whether KSM can merge such a page: anonymous, in a private mapping.
fn is_for_ksm(flags: Flags) -> bool {
    !flags.is_page_cache && !flags.is_shared_mapping && !flags.is_hugetlb
}

/// Pages with the same content, sorted by frame; returns how many of their frames KSM has merged.
fn count_group(group: &[Entry], owners: &[Owner], most_sharing: u64, counts: &mut BTreeMap<Bin, Count>) -> u64 {
    let owner = |entry: &Entry| owners.get(entry.source()).copied().unwrap_or(Owner::File);
    let is_zero = group[0].content().is_zero();
    let mut in_file = false;
    let mut instances = BTreeSet::new();
    // Frames of each instance; a frame that is not known is one of its own.
    let mut frames: BTreeMap<usize, u64> = BTreeMap::new();
    for of_frame in group.chunk_by(|one, other| one.frame() == other.frame() && one.frame() != 0) {
        let mut here = BTreeSet::new();
        for entry in of_frame {
            match owner(entry) {
                Owner::File => in_file = true,
                Owner::Instance(instance) => {
                    in_file |= entry.flags().is_page_cache;
                    here.insert(instance);
                }
            }
        }
        for &instance in &here {
            *frames.entry(instance).or_default() += 1;
        }
        instances.extend(here);
    }
    let mut ksm_frames = 0;
    let mut told = BTreeSet::new();
    let mut merging = Merging { most_sharing, merged: 0, had_frame: group.iter().any(|entry| entry.flags().is_ksm) };
    for of_frame in group.chunk_by(|one, other| one.frame() == other.frame() && one.frame() != 0) {
        let mut counted = BTreeSet::new();
        ksm_frames += u64::from(of_frame[0].flags().is_ksm);
        for entry in of_frame {
            let Owner::Instance(instance) = owner(entry) else { continue };
            let flags = entry.flags();
            let class = match () {
                () if is_zero => Class::Zero,
                () if in_file => Class::SameAsFile,
                () if instances.len() > 1 => Class::SameAcross,
                () if frames.get(&instance).is_some_and(|frames| *frames > 1) => Class::SameWithin,
                () => Class::Unique,
            };
            let is_shared = of_frame.len() > 1 || flags.is_ksm || flags.is_page_cache || !flags.is_exclusive;
            let (state, reason) = if is_shared { (State::Already, None) } else { why_not(class, flags) };
            let bin = Bin {
                instance,
                source: entry.source(),
                region: flags.region,
                class,
                state,
                reason,
                is_inferred: entry.frame() == 0,
            };
            let count = counts.entry(bin).or_default();
            count.ksm += u64::from(flags.is_ksm);
            if !counted.insert(instance) {
                continue;
            }
            count.pages += 1;
            count.distinct += u64::from(told.insert(bin));
            if !is_shared && is_for_ksm(flags) {
                count.freeable += merging.merge();
            }
        }
    }
    ksm_frames
}

/// What KSM would do with the pages of a group.
struct Merging {
    most_sharing: u64,
    merged: u64,
    had_frame: bool,
}

impl Merging {
    /// One more page is merged; returns how many frames that frees: 0 for the one that stays.
    fn merge(&mut self) -> u64 {
        let stays = self.merged.is_multiple_of(self.most_sharing) && !(self.had_frame && self.merged == 0);
        self.merged += 1;
        u64::from(!stays)
    }
}

/// Whether a page that is not shared could be, and why it is not.
fn why_not(class: Class, flags: Flags) -> (State, Option<Reason>) {
    if class == Class::Unique {
        let written = flags.is_private_file;
        return (State::CouldNot, Some(if written { Reason::Written } else { Reason::Unique }));
    }
    let (state, reason) = match () {
        () if flags.is_hugetlb || flags.is_shared_mapping => (State::CouldNot, Reason::SharedMapping),
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
    use crate::measure::memory::pages::entry::Hasher;

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

    /// Counts pages: number of the source, content, frame, flags. Sources 0 and 1 are instances 0 and 1, 2 is a second process
    /// of instance 0, 3 is a file.
    fn counted(pages: &[(usize, u8, u64, Flags)]) -> BTreeMap<(usize, Class, State, Option<Reason>), Count> {
        let hasher = Hasher::new(4096);
        let owners = [Owner::Instance(0), Owner::Instance(1), Owner::Instance(0), Owner::File];
        let mut entries: Vec<Entry> = (0..)
            .zip(pages)
            .map(|(number, &(source, byte, frame, flags))| {
                Entry::new(hasher.of(&[byte; 4096]), frame, flags, source, number)
            })
            .collect();
        let mut sums: BTreeMap<_, Count> = BTreeMap::new();
        for (bin, count) in classify(&mut entries, &owners, 256).0 {
            let sum = sums.entry((bin.instance, bin.class, bin.state, bin.reason)).or_default();
            sum.pages += count.pages;
            sum.distinct += count.distinct;
            sum.ksm += count.ksm;
            sum.freeable += count.freeable;
        }
        sums
    }

    fn count(pages: u64, ksm: u64, freeable: u64) -> Count {
        // One content each.
        Count { pages, distinct: 1, ksm, freeable }
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
            (3, 4, 17, PLAIN),
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
            ((0, Class::SameAcross, State::Already, None), count(1, 0, 0)),
            ((1, Class::SameAcross, State::Already, None), count(1, 0, 0)),
            ((0, Class::Unique, State::Already, None), count(1, 0, 0)),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn reasons_are_told_from_each_other() {
        let guest = Flags { region: Region::Guest, ..PLAIN };
        let private_file = Flags { is_private_file: true, region: Region::File, ..PLAIN };
        let found = counted(&[
            (3, 1, 10, PLAIN),
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
        assert_eq!(pages(Class::SameWithin, State::CouldNot, Reason::SharedMapping), 2);
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
}
