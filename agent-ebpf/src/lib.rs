//! What the BPF programs of sandscope and its user space both see: the records of the timeline, and the values of the maps.
//!
//! Everything here is `repr(C)` and plain old data: integers in place of `bool`, and explicit padding, so that a record never
//! carries uninitialised kernel bytes. `bytemuck`'s derive refuses to compile a type that breaks this.

#![no_std]

pub mod event;
pub mod histogram;
#[cfg(feature = "programs")]
pub mod kernel;
pub mod map;
pub mod sums;
