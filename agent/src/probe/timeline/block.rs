//! Block requests of threads in scope.

use crate::probe::{Definition, Event::Classic, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "block",
    required: false,
    hooks: |_| {
        &[
            Hook { program: "block_bio_queue", event: Classic("block", "block_bio_queue") },
            Hook { program: "block_split", event: Classic("block", "block_split") },
            Hook { program: "block_rq_issue", event: Classic("block", "block_rq_issue") },
            Hook { program: "block_rq_complete", event: Classic("block", "block_rq_complete") },
        ]
    },
    globals: |kernel| {
        let mut globals = kernel.fields(
            "block",
            "block_bio_queue",
            &[("BIO_QUEUE_DEV", "dev"), ("BIO_QUEUE_SECTOR", "sector"), ("BIO_QUEUE_RWBS", "rwbs")],
        )?;
        globals.extend(kernel.fields(
            "block",
            "block_split",
            &[("SPLIT_DEV", "dev"), ("SPLIT_SECTOR", "sector"), ("SPLIT_NEW_SECTOR", "new_sector")],
        )?);
        globals.extend(kernel.fields(
            "block",
            "block_rq_issue",
            &[("RQ_ISSUE_DEV", "dev"), ("RQ_ISSUE_SECTOR", "sector")],
        )?);
        globals.extend(kernel.fields(
            "block",
            "block_rq_complete",
            &[
                ("RQ_COMPLETE_DEV", "dev"),
                ("RQ_COMPLETE_SECTOR", "sector"),
                ("RQ_COMPLETE_NR_SECTOR", "nr_sector"),
                ("RQ_COMPLETE_ERROR", "error"),
            ],
        )?);
        Ok(globals)
    },
};

/// `MAJOR:MINOR` of a device number as the kernel encodes it (`include/linux/kdev_t.h`: 20 bits of minor).
pub fn device_name(device: u32) -> String {
    format!("{}:{}", device >> 20, device & ((1 << 20) - 1))
}
