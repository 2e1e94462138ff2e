//! KVM's own statistics of a vCPU (`KVM_GET_STATS_FD`, Linux 5.14 and later): a count of the same run by somebody else.

use anyhow::{Context, Result, ensure};
use kvm_ioctls::VcpuFd;
use std::{
    collections::BTreeMap,
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
};

/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::Ioctl = 0xaece;
/// Size of `struct kvm_stats_header` in bytes.
const HEADER_SIZE: usize = 24;
/// Size of `struct kvm_stats_desc` without the name behind it, in bytes.
const DESCRIPTOR_SIZE: usize = 16;
// What is believed at most: kernels have names of 48 bytes, about 50 statistics, and 4 KiB of values.
const MAX_NAME_SIZE: usize = 256;
const MAX_STATISTICS: usize = 1024;
const MAX_DATA_SIZE: usize = 1 << 20;

/// The statistics of one vCPU.
pub struct Statistics {
    file: File,
    layout: Layout,
}

impl Statistics {
    /// Finds out which statistics there are.
    ///
    /// # Errors
    /// When the kernel has none, or describes them in a way that is not understood.
    pub fn open(vcpu: &VcpuFd) -> Result<Self> {
        // SAFETY: the descriptor is that of a vCPU, and this request has no argument.
        let fd = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_STATS_FD) };
        ensure!(fd >= 0, "KVM has no statistics of a vCPU: {}", io::Error::last_os_error());
        // SAFETY: the kernel has made this descriptor for the caller, so nothing else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        let layout = Layout::read(&file).context("the statistics of the vCPU are not understood")?;
        Ok(Self { file, layout })
    }

    /// The values at this moment, by name.
    ///
    /// # Errors
    /// When the kernel does not give them.
    pub fn read(&self) -> io::Result<BTreeMap<&str, u64>> {
        let Layout { data, size, values } = &self.layout;
        let mut block = vec![0; *size];
        self.file.read_exact_at(&mut block, *data)?;
        let number = |offset: usize| u64::from_ne_bytes(block[offset..offset + 8].try_into().expect("eight bytes"));
        Ok(values.iter().map(|(name, offset)| (name.as_str(), number(*offset))).collect())
    }
}

/// What is where in the file.
struct Layout {
    /// Where the block of values starts.
    data: u64,
    /// How much of it is read.
    size: usize,
    /// The single values (no histograms): name, and offset in the block.
    values: Vec<(String, usize)>,
}

impl Layout {
    fn read(file: &File) -> Result<Self> {
        let mut header = [0; HEADER_SIZE];
        file.read_exact_at(&mut header, 0)?;
        let [name_size, count, descriptors, data] = [4, 8, 16, 20].map(|offset| word(&header, offset));
        let (name_size, count) = (name_size as usize, count as usize);
        ensure!(
            name_size <= MAX_NAME_SIZE && count <= MAX_STATISTICS,
            "{count} of them, with names of {name_size} bytes"
        );
        let stride = DESCRIPTOR_SIZE + name_size;
        let mut table = vec![0; stride * count];
        file.read_exact_at(&mut table, descriptors.into())?;
        let mut values = Vec::with_capacity(count);
        for descriptor in table.chunks_exact(stride) {
            let items = u16::from_ne_bytes([descriptor[6], descriptor[7]]);
            let offset = word(descriptor, 8) as usize;
            ensure!(offset <= MAX_DATA_SIZE, "a value at {offset}");
            if items == 1 {
                let name = CStr::from_bytes_until_nul(&descriptor[DESCRIPTOR_SIZE..])?.to_str()?;
                values.push((name.to_owned(), offset));
            }
        }
        let size = values.iter().map(|(_, offset)| offset + 8).max().unwrap_or(0);
        Ok(Self { data: data.into(), size, values })
    }
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("the range has four bytes"))
}
