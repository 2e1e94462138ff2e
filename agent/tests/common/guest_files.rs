//! The file that a guest has on a disk: who reads it, and when nobody does.

use super::dataset::{Row, rows, sum};
use std::path::Path;

/// Pages of the file, which xtask makes the same on every machine.
const PAGES: i128 = 12_805;
const PAGE: i128 = 4096;
/// Pages of the disk that say where on it the file is, at most.
const MORE: i128 = 16;

/// Of the dataset of an experiment `read`: what a guest of these sandboxes has not in its own page cache its VMM reads from the disk,
/// the whole file and next to nothing else; what it has, nobody reads. Returns how many requests were looked at.
pub fn are_read_once(out: &Path, sandboxes: &[&str]) -> usize {
    let (instances, steps) = (rows(out, "instances"), rows(out, "steps"));
    let (files, block) = (rows(out, "files"), rows(out, "block_latency"));
    let is_guest = |step: &&Row| {
        let id = step.text("instance_id");
        let of = instances.iter().find(|row| row.text("instance_id") == id).unwrap();
        step.text("path") == "/read" && sandboxes.contains(&of.text("sandbox"))
    };
    let mut looked_at = 0;
    for step in steps.iter().filter(is_guest) {
        let (id, name) = (step.text("instance_id"), step.text("name"));
        assert_eq!(step.number("ok"), Some(1), "{id} {name}: {}", step.text("error"));
        let is = |row: &&Row| row.text("instance_id") == id && row.number("step") == step.number("step");
        let disk = files.iter().filter(is).find(|row| row.text("name").ends_with("data"));
        let number = |column: &str| disk.and_then(|row| row.number(column)).unwrap_or(0);
        let from_disk = sum(block.iter().filter(is).filter(|row| row.number("write") == Some(0)), "size_bytes");
        looked_at += 1;
        if name.starts_with("guest-warm") {
            assert_eq!((number("read_bytes"), from_disk), (0, 0), "{id} {name}");
            continue;
        }
        let read = number("read_bytes");
        assert!((PAGES * PAGE..=(PAGES + MORE) * PAGE).contains(&read), "{id} {name}: {read} bytes for {PAGES} pages");
        let is_cold = name.ends_with("host-cold");
        assert_eq!(number("hit_bytes"), if is_cold { 0 } else { read }, "{id} {name}");
        assert!(if is_cold { from_disk >= read } else { from_disk == 0 }, "{id} {name}: {from_disk} of {read} bytes");
    }
    looked_at
}
