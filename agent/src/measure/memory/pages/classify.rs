//! Sorts pages by their content and tells of each what could become of it. Pure: pages go in, counts come out.

use super::{entry::Entry, group::count_group};
use crate::measure::memory::mapping::Region;
use std::collections::BTreeMap;

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
    /// All who hold the same use its frame: it has more than one user and no other frame equals it, or it is KSM's or the page
    /// cache's.
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
    /// The page cache holds the same page of another file: a copy of this one.
    FileCopy,
    /// A part of a huge page: that would have to be split first.
    HugePage,
    /// Of hugetlbfs: nothing merges these.
    Hugetlb,
    /// Of a mapping whose writes others see: nothing merges these.
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
            Self::FileCopy => "file_copy",
            Self::HugePage => "huge_page",
            Self::Hugetlb => "hugetlb",
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
    /// The same pages, each mapping counted: as the kernel counts in RSS.
    pub mappings: u64,
    /// Different contents among them.
    pub distinct: u64,
    /// Mappings of frames that KSM has merged: as many as the kernel counts as merged of the process.
    pub ksm: u64,
    /// Frames that KSM would free if it merged all that it could. A frame that somebody else uses too is not among them.
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

/// What is known beside the pages themselves.
pub struct Known<'a> {
    /// What each source is.
    pub owners: &'a [Owner],
    /// How many mappings KSM gives a frame at most.
    pub most_sharing: u64,
    /// How many mappings a frame has on the whole host; `None` where the kernel does not tell.
    pub users: &'a dyn Fn(u64) -> Option<u64>,
    /// At which page of its file a page of the page cache is.
    pub place_in_file: &'a dyn Fn(&Entry) -> Option<u64>,
}

impl Known<'_> {
    /// Whose the page is.
    pub(super) fn owner(&self, entry: &Entry) -> Owner {
        self.owners.get(entry.source()).copied().unwrap_or(Owner::File)
    }
}

/// What the pages are.
#[derive(Debug, Default)]
pub struct Classified {
    /// How many there are of each kind.
    pub counts: BTreeMap<Bin, Count>,
    /// Frames that KSM has merged.
    pub ksm_frames: u64,
    /// Frames of processes that KSM can merge, or has merged: what it frees is missing among them afterwards.
    pub for_ksm_frames: u64,
    /// Frames of the page cache beyond the first that hold the same page of a file and of its copies.
    pub file_copies: u64,
}

/// Counts pages. Sorts them in place, so that those with the same content are neighbours.
pub fn classify(entries: &mut [Entry], known: &Known<'_>) -> Classified {
    entries.sort_unstable();
    let mut classified = Classified::default();
    for group in entries.chunk_by(|one, other| one.content() == other.content()) {
        count_group(group, known, &mut classified);
    }
    classified
}
