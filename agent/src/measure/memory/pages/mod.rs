//! What is in the pages of running instances: which are equal, which of these are one page already, which could be, and why the
//! others are not.
//!
//! ```text
//! mappings ─► pagemap (which pages are there, in which frames) ─► scan (copies) ─► entry (fingerprint, 24 bytes a page)
//! files in the page cache ──────────────────────────────────────────────────────────►      │
//!                                                    counts by class, state and reason ◄─ classify (sort, group)
//! ```
//!
//! The memory that this takes grows with what is looked at: 48 MiB for 8 GiB. Equality is by 76 bits of a keyed hash; some pairs
//! of each analysis are compared byte by byte to confirm that.

pub mod balance;
pub mod classify;
mod entry;
mod group;
pub mod kin;
pub mod pagemap;
pub mod pause;
mod reader;
mod scan;
pub mod shifted;
pub mod speed;

use super::{guest, living, mapping};
use anyhow::{Context as _, Result, ensure};
use balance::Balance;
use classify::{Bin, Class, Classified, Count, Known, Owner, Reason, State, classify};
use entry::{Entry, MOST_SOURCES};
use pagemap::FrameUsers;
use pause::Paused;
use reader::Reader;
use rustix::param::page_size;
use scan::{Scope, scan};
use shifted::Shifted;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Groups of equal pages of which a pair is compared byte by byte.
const VERIFIED: usize = 4096;
/// How many users KSM gives a frame, where it does not tell.
const MOST_SHARING: u64 = 256;

/// A process to look at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its number.
    pub pid: i32,
    /// Its role: that of a `vmm` says that it has the memory of a guest.
    pub role: String,
    /// Number of its instance.
    pub instance: usize,
}

/// What was found.
#[derive(Debug)]
pub struct Analysis {
    /// Pages by what they are. The source of a bin is the place of a subject.
    pub counts: BTreeMap<Bin, Count>,
    /// Frames that KSM has merged, each counted once.
    pub ksm_frames: u64,
    /// Frames that KSM can merge, or has merged, each counted once.
    pub for_ksm_frames: u64,
    /// Frames of the page cache beyond the first that hold the same page of a file and of its copies.
    pub file_copies: u64,
    /// Whether all that the kernel counts was found.
    pub balance: Balance,
    /// Pages that nothing equals, but whose content is somewhere else at another place.
    pub shifted: Shifted,
    /// Pairs of equal pages that were compared byte by byte.
    pub verified: u64,
    /// Those of them that differed: the target went on and changed them, or the fingerprint lied.
    pub differed: u64,
    /// Bytes that were looked at.
    pub scanned_bytes: u64,
    /// Time for copying and hashing.
    pub scan_time: Duration,
    /// Time for everything.
    pub time: Duration,
    /// For how long the processes were held; `None`: they went on meanwhile.
    pub paused: Option<Duration>,
    /// Threads that were to be held but could not be, and why.
    pub not_paused: Vec<(i32, String)>,
    /// Processes that were never to be held: the agent can't go on without them.
    pub spared: BTreeSet<i32>,
    /// Whether the processes were let go before all was looked at, since it took longer than anybody may be held.
    pub was_cut_short: bool,
    /// Whether the frames were known.
    pub frames_known: bool,
    /// Memory that the fingerprints took, in bytes.
    pub table_bytes: u64,
}

impl Analysis {
    /// Sum over the bins for which this holds.
    pub fn pages(&self, is_of_interest: impl Fn(&Bin) -> bool) -> u64 {
        self.counts.iter().filter(|(bin, _)| is_of_interest(bin)).map(|(_, count)| count.pages).sum()
    }

    /// Pages of the processes that KSM has merged: mappings, not frames.
    pub fn ksm_pages(&self) -> u64 {
        self.counts.values().map(|count| count.ksm).sum()
    }

    /// Frames that KSM would free if it merged all that it could.
    pub fn freeable_pages(&self) -> u64 {
        self.counts.values().map(|count| count.freeable).sum()
    }
}

/// Who stands still while pages are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody.
    Nobody,
    /// All but those without whom the agent can't go on.
    All,
    /// All but those, and but what descends from the agent: it started them to help.
    Strangers,
}

/// Looks at all pages in memory of these processes, and at those of these files that are in the page cache. With `hold`, the
/// processes stand still meanwhile.
///
/// # Errors
/// When a process may not be looked at, a file can't be read, or the processes can't be held.
pub fn analyse(subjects: &[Subject], files: &[PathBuf], hold: bool) -> Result<Analysis> {
    let hold = if hold { Hold::All } else { Hold::Nobody };
    analyse_until(subjects, files, hold, &|| false)?.context("nobody has cancelled it")
}

/// The same, until `is_cancelled` says that nobody wants to know: then `None`, and who was held goes on.
///
/// # Errors
/// When a process may not be looked at, a file can't be read, or the processes can't be held.
pub fn analyse_until(
    subjects: &[Subject],
    files: &[PathBuf],
    hold: Hold,
    is_cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Analysis>> {
    ensure!(
        subjects.len() + files.len() <= MOST_SOURCES,
        "{} processes and files are more than can be told apart ({MOST_SOURCES})",
        subjects.len() + files.len()
    );
    let start = Instant::now();
    let mut pids: BTreeSet<i32> = subjects.iter().map(|subject| subject.pid).collect();
    let helpers = if hold == Hold::Strangers { kin::descendants(&pids) } else { BTreeSet::new() };
    pids.retain(|pid| !helpers.contains(pid));
    let pids: Vec<i32> = pids.into_iter().collect();
    let held = if hold == Hold::Nobody { None } else { Some(Paused::begin(&pids, is_cancelled)?) };
    let not_paused = held.as_ref().map_or_else(Vec::new, |held| held.running.clone());
    let mut spared = held.as_ref().map_or_else(BTreeSet::new, |held| held.spared.clone());
    spared.extend(helpers);
    let threads: Vec<i32> =
        subjects.iter().map(|subject| living::thread_of(subject.pid).unwrap_or(subject.pid)).collect();
    let mapped: Vec<_> = subjects.iter().zip(&threads).map(mappings_of).collect::<Result<_>>()?;
    let files: Vec<&PathBuf> = files.iter().filter(|path| path.is_file()).collect();
    let room = room(&mapped, &files);
    let scanning = Instant::now();
    let mut found = scan(&Scope { threads: &threads, mapped: &mapped, files: &files, is_cancelled }, room)?;
    let scan_time = scanning.elapsed();
    if is_cancelled() {
        return Ok(None);
    }
    let owners: Vec<Owner> = subjects
        .iter()
        .map(|subject| Owner::Instance(subject.instance))
        .chain(files.iter().map(|_| Owner::File))
        .collect();
    let users = FrameUsers::open().ok();
    let known = Known {
        owners: &owners,
        most_sharing: most_sharing(),
        users: &|frame| users.as_ref()?.of(frame),
        place_in_file: &|entry| place_in_file(entry, &mapped),
    };
    let Classified { mut counts, ksm_frames, for_ksm_frames, file_copies } = classify(&mut found.entries, &known);
    if is_cancelled() {
        return Ok(None);
    }
    let (verified, differed) = verify(&found.entries, &threads);
    let shifted = shifted::find(&found.entries, &threads);
    for (&(source, region, is_shared), &pages) in &found.unread {
        let bin = Bin {
            instance: subjects[source].instance,
            source,
            region,
            class: Class::Unread,
            state: if is_shared { State::Already } else { State::CouldNot },
            reason: (!is_shared).then_some(Reason::Unreadable),
            is_inferred: true,
        };
        let count = counts.entry(bin).or_default();
        count.pages += pages;
        count.mappings += pages;
    }
    // Where nobody was stopped, nobody stood still.
    let held = held.filter(|held| held.stopped > 0).map(Paused::end);
    Ok(Some(Analysis {
        balance: Balance::of(&counts, &mapped, |source| !spared.contains(&subjects[source].pid)),
        counts,
        ksm_frames,
        for_ksm_frames,
        file_copies,
        shifted,
        verified,
        differed,
        scanned_bytes: found.scanned_bytes,
        scan_time,
        table_bytes: (found.entries.capacity() * size_of::<Entry>()) as u64,
        paused: held.map(|held| held.time),
        not_paused,
        spared,
        was_cut_short: held.is_some_and(|held| held.was_cut_short),
        frames_known: pagemap::zero_frame().is_some(),
        time: start.elapsed(),
    }))
}

fn mappings_of((subject, &thread): (&Subject, &i32)) -> Result<Vec<mapping::Mapping>> {
    match mapping::of_process(thread) {
        Ok(mut mappings) => {
            guest::mark(&mut mappings, &subject.role);
            Ok(mappings)
        }
        // It has ended, and has no memory any more.
        Err(_) if !super::footprint::is_alive(subject.pid) => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("the mappings of process {} can't be read", subject.pid)),
    }
}

/// At which page of its file a page of the page cache is. Pages of files that were looked at as such are numbered so.
fn place_in_file(entry: &Entry, mapped: &[Vec<mapping::Mapping>]) -> Option<u64> {
    let Some(mappings) = mapped.get(entry.source()) else { return Some(entry.page()) };
    let size = page_size() as u64;
    let address = entry.page() * size;
    // They come in the order of their addresses.
    let mapping = &mappings[mappings.partition_point(|mapping| mapping.end <= address)..].first()?;
    Some((address.checked_sub(mapping.start)? + mapping.offset) / size)
}

/// Pages that will be found, about: so that the table need not grow, which would take twice its memory for a moment.
fn room(mapped: &[Vec<mapping::Mapping>], files: &[&PathBuf]) -> usize {
    let mapped = mapped.iter().flatten().map(|mapping| mapping.rss_bytes + mapping.hugetlb_bytes).sum::<u64>();
    let files = files.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum::<u64>();
    ((mapped + files) as usize).div_ceil(page_size())
}

/// How many users KSM gives a frame at most.
fn most_sharing() -> u64 {
    let text = fs::read_to_string(Path::new("/sys/kernel/mm/ksm/max_page_sharing"));
    text.ok().and_then(|text| text.trim().parse().ok()).filter(|most| *most > 0).unwrap_or(MOST_SHARING)
}

/// Compares pairs of pages that are said to be equal but are in different frames, of groups all over the table; returns how many,
/// and how many of them differed.
fn verify(entries: &[Entry], threads: &[i32]) -> (u64, u64) {
    let (mut verified, mut differed) = (0, 0);
    let of_process = |entry: &&Entry| entry.source() < threads.len();
    let size = page_size();
    let (mut one, mut other) = (vec![0; size], vec![0; size]);
    let read = |entry: &Entry, buffer: &mut [u8]| {
        let mut reader = Reader::new(threads[entry.source()]);
        reader.read(entry.page(), buffer, true).is_ok_and(|pages| pages == 1)
    };
    let groups = entries.chunk_by(|one, other| one.content() == other.content()).filter(|group| group.len() > 1);
    let step = (groups.clone().count() / VERIFIED).max(1);
    for group in groups.step_by(step) {
        let mut members = group.iter().filter(of_process);
        let Some(first) = members.next() else { continue };
        let Some(second) = members.find(|entry| entry.frame() != first.frame()) else { continue };
        if read(first, &mut one) && read(second, &mut other) {
            verified += 1;
            differed += u64::from(one != other);
        }
    }
    (verified, differed)
}
