//! Why a vCPU left its guest, with the device that the guest reached for: on most processors an access to one is the same exit as the
//! first touch of a page of memory, and only the access that KVM emulates before it goes back tells them apart.

use crate::probe::ExitReasons;
use std::collections::BTreeSet;

/// Pages of devices that are told apart in one instance: a guest decides which addresses it reaches for.
const MAX_PAGES: usize = 64;
/// Bytes of a page, which is what a device has for its registers.
const PAGE_BYTES: u64 = 4096;
/// `isa` and `EXIT_REASON_EPT_MISCONFIG` (`arch/x86/include/uapi/asm/vmx.h`): KVM makes such entries for devices and for nothing else.
const VMX_MISCONFIG: (u32, u32) = (1, 49);
/// VMX keeps flags in the upper half of a reason.
const VMX_CODE: u32 = 0xffff;

/// Why a vCPU left its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitReason {
    /// Code of the processor.
    pub code: u32,
    /// Instruction set that the code is of; see [`ExitReasons::name`].
    pub isa: u32,
    /// Memory of a device that it reached for.
    pub device: Option<DevicePage>,
}

/// Memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DevicePage {
    /// In the page at this address of the guest.
    At(u64),
    /// In one of the pages beyond those that are told apart, or in one that KVM does not tell.
    Other,
}

impl ExitReason {
    /// What the exit itself tells.
    pub(super) fn of(code: u32, isa: u32) -> Self {
        let device = ((isa, code & VMX_CODE) == VMX_MISCONFIG).then_some(DevicePage::Other);
        Self { code, isa, device }
    }

    /// KVM emulates an access for it. The first is the one that the guest left for.
    pub(super) fn reaches_for(&mut self, page: DevicePage) {
        if !matches!(self.device, Some(DevicePage::At(_))) {
            self.device = Some(page);
        }
    }

    /// Its name, such as `npf (mmio 0xc0001000)`.
    pub fn name(self, names: &ExitReasons) -> String {
        let name = names.name(self.isa, self.code);
        match self.device() {
            Some(device) => format!("{name} ({device})"),
            None => name,
        }
    }

    /// The device alone, such as `mmio 0xc0001000`.
    pub fn device(self) -> Option<String> {
        self.device.map(|page| match page {
            DevicePage::At(address) => format!("mmio {address:#x}"),
            DevicePage::Other => "mmio".to_owned(),
        })
    }
}

/// The pages of devices that are told apart.
#[derive(Debug, Default)]
pub(super) struct DevicePages(BTreeSet<u64>);

impl DevicePages {
    /// The page of an address.
    pub(super) fn of(&mut self, address: u64) -> DevicePage {
        let page = address - address % PAGE_BYTES;
        if self.0.contains(&page) || self.0.len() < MAX_PAGES && self.0.insert(page) {
            DevicePage::At(page)
        } else {
            DevicePage::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_with_the_exit_for_it() {
        let reason = |device| ExitReason { code: 0x400, isa: 2, device }.name(&ExitReasons::default());
        assert_eq!(reason(None), "0x400");
        assert_eq!(reason(Some(DevicePage::At(0xc000_1000))), "0x400 (mmio 0xc0001000)");
        assert_eq!(reason(Some(DevicePage::Other)), "0x400 (mmio)");
        // A bell that KVM itself answers has no access that it tells.
        assert_eq!(ExitReason::of(0x8000_0031, 1).device().as_deref(), Some("mmio"));
        assert_eq!([ExitReason::of(49, 2), ExitReason::of(48, 1)].map(ExitReason::device), [None, None]);
        let mut told = ExitReason::of(49, 1);
        told.reaches_for(DevicePage::At(0x1000));
        told.reaches_for(DevicePage::At(0x2000));
        assert_eq!(told.device, Some(DevicePage::At(0x1000)));
    }

    #[test]
    fn a_guest_that_reaches_for_everything_is_told_in_bounded_space() {
        let mut pages = DevicePages::default();
        let first = pages.of(0xd000_0abc);
        assert_eq!(first, DevicePage::At(0xd000_0000));
        let all: BTreeSet<_> = (0..1000).map(|page| pages.of(page * PAGE_BYTES)).collect();
        assert_eq!(all.len(), MAX_PAGES, "the last of them for all others");
        assert_eq!(pages.of(0xd000_0000), first, "it stays");
        assert_eq!(pages.of(u64::MAX), DevicePage::Other);
    }
}
