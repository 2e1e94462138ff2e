//! A page that was looked at, in 24 bytes: 8 GiB of pages take 48 MiB.

use crate::measure::memory::mapping::Region;
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Most processes and files in one analysis.
pub const MOST_SOURCES: usize = 1 << 16;
/// The largest page number: addresses have at most 57 bits (five levels of page tables), pages at least 4 KiB.
const PAGE_BITS: u32 = 48;
/// The largest frame number: 4 PiB of memory.
const FRAME_BITS: u32 = 40;
/// Bits of the fingerprint beside the 64 of `hash`.
const CHECK_BITS: u32 = 64 - FRAME_BITS - FLAG_BITS;
const FLAG_BITS: u32 = 12;

/// What is known of a page beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// Kind of memory.
    pub region: Region,
    /// Whether it is the page cache's.
    pub is_page_cache: bool,
    /// Whether its mapping is of a file, and private.
    pub is_private_file: bool,
    /// Whether writes of one are seen by all who map it, so that it can't be merged.
    pub is_shared_mapping: bool,
    /// Whether it is mapped once.
    pub is_exclusive: bool,
    /// Whether KSM was asked to merge its mapping.
    pub is_mergeable: bool,
    /// Whether KSM has merged it.
    pub is_ksm: bool,
    /// Whether it is a part of a huge page.
    pub is_huge: bool,
    /// Whether it is of hugetlbfs, whose pages nothing can merge.
    pub is_hugetlb: bool,
}

impl Flags {
    fn bits(self) -> u64 {
        let region = Region::ALL.iter().position(|region| *region == self.region).unwrap_or(0) as u64;
        let flags = [
            self.is_page_cache,
            self.is_private_file,
            self.is_shared_mapping,
            self.is_exclusive,
            self.is_mergeable,
            self.is_ksm,
            self.is_huge,
            self.is_hugetlb,
        ];
        flags.iter().enumerate().fold(region, |bits, (place, &flag)| bits | u64::from(flag) << (3 + place))
    }

    fn of(bits: u64) -> Self {
        let flag = |place: u32| bits >> (3 + place) & 1 == 1;
        Self {
            region: Region::ALL[(bits & 7) as usize],
            is_page_cache: flag(0),
            is_private_file: flag(1),
            is_shared_mapping: flag(2),
            is_exclusive: flag(3),
            is_mergeable: flag(4),
            is_ksm: flag(5),
            is_huge: flag(6),
            is_hugetlb: flag(7),
        }
    }
}

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    hash: u64,
    /// What is left of the fingerprint, the frame and the flags, so that equal pages in one frame are neighbours when sorted.
    rest: u64,
    /// Source and page number.
    place: u64,
}

impl Entry {
    /// The page with this number of this source.
    pub fn new(content: Fingerprint, frame: u64, flags: Flags, source: usize, page: u64) -> Self {
        let frame = frame & ((1 << FRAME_BITS) - 1);
        Self {
            hash: content.hash,
            rest: content.check << (FRAME_BITS + FLAG_BITS) | frame << FLAG_BITS | flags.bits(),
            place: (source as u64) << PAGE_BITS | page & ((1 << PAGE_BITS) - 1),
        }
    }

    /// Its content, as far as the fingerprint tells.
    pub fn content(&self) -> Fingerprint {
        Fingerprint { hash: self.hash, check: self.rest >> (FRAME_BITS + FLAG_BITS) }
    }

    /// Its frame; 0 when that is not known.
    pub fn frame(&self) -> u64 {
        self.rest >> FLAG_BITS & ((1 << FRAME_BITS) - 1)
    }

    /// What else is known of it.
    pub fn flags(&self) -> Flags {
        Flags::of(self.rest)
    }

    /// The process or file that it is of.
    pub fn source(&self) -> usize {
        (self.place >> PAGE_BITS) as usize
    }

    /// Its number there.
    pub fn page(&self) -> u64 {
        self.place & ((1 << PAGE_BITS) - 1)
    }
}

/// What a page holds, in 76 bits of XXH3 of 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    hash: u64,
    check: u64,
}

impl Fingerprint {
    /// A page of zeros. No other page has this fingerprint.
    pub const ZERO: Self = Self { hash: 0, check: 0 };

    /// Whether it is of a page of zeros.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

/// Takes fingerprints, with a secret of its own: a guest can't make up pages that seem to be equal.
pub struct Hasher {
    secret: [u8; 192],
    zero: u128,
    page_size: usize,
}

impl Hasher {
    /// For pages of this size, with a secret that is drawn at random.
    pub fn new(page_size: usize) -> Self {
        let secret: [u8; 192] = std::array::from_fn(|_| rand::random());
        Self { secret, zero: xxh3_128_with_secret(&vec![0; page_size], &secret), page_size }
    }

    /// The fingerprint of a page, or of a part of one.
    pub fn of(&self, page: &[u8]) -> Fingerprint {
        let hash = xxh3_128_with_secret(page, &self.secret);
        if hash == self.zero && page.len() == self.page_size && page.iter().all(|byte| *byte == 0) {
            return Fingerprint::ZERO;
        }
        // Never that of zeros.
        Fingerprint { hash: (hash as u64).max(1), check: (hash >> 64) as u64 & ((1 << CHECK_BITS) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_24_bytes_comes_out() {
        assert_eq!(size_of::<Entry>(), 24);
        let hasher = Hasher::new(4096);
        let content = hasher.of(&[7; 4096]);
        for bits in 0..1 << 11 {
            let flags = Flags::of(bits);
            let entry = Entry::new(content, 0x12_3456_789a, flags, MOST_SOURCES - 1, (1 << PAGE_BITS) - 1);
            assert_eq!(entry.flags(), flags);
            assert_eq!((entry.content(), entry.frame()), (content, 0x12_3456_789a));
            assert_eq!((entry.source(), entry.page()), (MOST_SOURCES - 1, (1 << PAGE_BITS) - 1));
        }
    }

    #[test]
    fn pages_have_one_fingerprint_and_zeros_their_own() {
        let hasher = Hasher::new(4096);
        assert!(hasher.of(&[0; 4096]).is_zero());
        let mut page = [0; 4096];
        page[4095] = 1;
        assert!(!hasher.of(&page).is_zero());
        assert_eq!(hasher.of(&page), hasher.of(&page.clone()));
        assert_ne!(hasher.of(&page), Hasher::new(4096).of(&page), "another secret");
    }
}
