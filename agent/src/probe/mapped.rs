//! An array map of the kernel in the agent's own memory: read and cleared without system calls.

use anyhow::{Context, Result};
use aya::maps::MapData;
use bytemuck::Pod;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::{marker::PhantomData, os::fd::AsFd, ptr::NonNull};

/// The elements of an array map that was made with `BPF_F_MMAPABLE`. Programs write to them meanwhile.
pub(super) struct MappedArray<T> {
    elements: NonNull<T>,
    length: u32,
    _elements: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone, and its elements are copied in and out.
unsafe impl<T: Send> Send for MappedArray<T> {}

impl<T: Pod> MappedArray<T> {
    /// Maps `length` elements.
    pub(super) fn map(map: &MapData, length: u32) -> Result<Self> {
        // The kernel rounds the size of an element up to eight bytes.
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8, "elements lie next to each other") };
        let bytes = length as usize * size_of::<T>();
        // SAFETY: a fresh shared mapping of a map made with BPF_F_MMAPABLE; the kernel keeps at least `bytes` behind it.
        let address = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map.fd().as_fd(), 0)
        }
        .with_context(|| format!("can't map an array of the BPF programs ({bytes} bytes)"))?;
        let elements = NonNull::new(address.cast()).context("an array was mapped at address 0")?;
        Ok(Self { elements, length, _elements: PhantomData })
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> u32 {
        self.length
    }

    /// Address of an element; nothing beyond the last.
    pub(super) fn at(&self, index: u32) -> Option<NonNull<T>> {
        // SAFETY: inside of the mapping, whose length in elements is `length`.
        (index < self.length).then(|| unsafe { self.elements.add(index as usize) })
    }

    /// A copy of an element; nothing beyond the last. A program may be in the middle of an event, so that one of its counters
    /// has the event and the next has not.
    pub(super) fn read(&self, index: u32) -> Option<T> {
        // SAFETY: aligned and valid as long as `self`; any bytes are a `T`.
        self.at(index).map(|element| unsafe { element.read_volatile() })
    }

    /// Overwrites an element that no program uses.
    pub(super) fn write(&self, index: u32, value: T) {
        if let Some(element) = self.at(index) {
            // SAFETY: aligned and valid as long as `self`.
            unsafe { element.write_volatile(value) };
        }
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        let bytes = self.length as usize * size_of::<T>();
        // SAFETY: the mapping was made with this length and nobody refers to it any more. A failure would only leak it.
        let _ = unsafe { munmap(self.elements.as_ptr().cast(), bytes) };
    }
}
