//! Block requests of threads in scope.

use crate::probe::{Definition, Event::Raw, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "block",
    required: false,
    hooks: |_| {
        &[
            Hook { program: "block_bio_queue", event: Raw("block_bio_queue") },
            Hook { program: "block_split", event: Raw("block_split") },
            Hook { program: "block_rq_issue", event: Raw("block_rq_issue") },
            Hook { program: "block_rq_complete", event: Raw("block_rq_complete") },
        ]
    },
    globals: |kernel| {
        let of = |structure, field| kernel.types.offset(structure, field);
        let iterator = of("bio", "bi_iter")?;
        Ok(vec![
            ("BIO_DEVICE", of("bio", "bi_bdev")?),
            ("BIO_SECTOR", iterator + of("bvec_iter", "bi_sector")?),
            ("BIO_SIZE", iterator + of("bvec_iter", "bi_size")?),
            ("BIO_OPERATION", of("bio", "bi_opf")?),
            ("BLOCK_DEVICE_DISK", of("block_device", "bd_disk")?),
            ("REQUEST_QUEUE", of("request", "q")?),
            ("REQUEST_SECTOR", of("request", "__sector")?),
            ("QUEUE_DISK", of("request_queue", "disk")?),
            ("DISK_MAJOR", of("gendisk", "major")?),
            ("DISK_FIRST_MINOR", of("gendisk", "first_minor")?),
        ])
    },
};

/// `MAJOR:MINOR` of a device number as the kernel encodes it (`include/linux/kdev_t.h`: 20 bits of minor).
pub fn device_name(device: u32) -> String {
    format!("{}:{}", device >> 20, device & ((1 << 20) - 1))
}

/// The negative error number of a request that failed, from what the kernel's tracepoint has: that number (Linux 5.15), or a
/// status of the block layer (`blk_errors` in `block/blk-core.c`, which takes those without an entry for `EIO` too).
pub fn error_code(error: i32) -> i32 {
    let number = match error {
        ..=0 => return error,
        1 => libc::EOPNOTSUPP,
        2 => libc::ETIMEDOUT,
        3 => libc::ENOSPC,
        4 => libc::ENOLINK,
        5 => libc::EREMOTEIO,
        6 => libc::EBADE,
        7 => libc::ENODATA,
        8 => libc::EILSEQ,
        9 => libc::ENOMEM,
        11 => libc::EREMCHG,
        12 => libc::EAGAIN,
        13 => libc::EBUSY,
        _ => libc::EIO,
    };
    -number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_both_kinds_are_error_numbers() {
        assert_eq!([0, -28, 3, 10, 99].map(error_code), [0, -libc::ENOSPC, -libc::ENOSPC, -libc::EIO, -libc::EIO]);
    }
}
