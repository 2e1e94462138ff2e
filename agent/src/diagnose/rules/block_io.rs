//! The start waits for a disk.

use crate::{
    diagnose::{
        Case, Evidence, Finding, Group, Quantity, Rule, Topic,
        starts::{self, Told},
    },
    record::tables::Block,
    report::units::size,
    results::Error,
};
use std::collections::BTreeMap;

/// Part of the wall time.
const TOLERATED: f64 = 0.25;

pub(super) struct BlockIo;

impl Rule for BlockIo {
    fn name(&self) -> &'static str {
        "block_io"
    }

    fn about(&self) -> &'static str {
        "Starts that spend 25 % of their time or more waiting for block devices."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn category(&self) -> Option<&'static str> {
        Some("block_io")
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "block"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let block = case.table::<Block>()?;
        starts::above(
            self,
            case,
            TOLERATED,
            |element| element.category == "block_io",
            |group, path, share| {
                let explained = group.explained();
                let mut roles: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
                for row in block.rows.iter().filter(|row| explained.contains(row.instance_id.as_str())) {
                    let sum = roles.entry(&row.role).or_default();
                    sum.0 += 1;
                    sum.1 += row.size_bytes;
                }
                let (requests, bytes) = roles.values().fold((0, 0), |sum, role| (sum.0 + role.0, sum.1 + role.1));
                let most = roles.iter().max_by_key(|(_, sum)| sum.1).map(|(role, (_, bytes))| {
                    let key = format!("sandbox={} role={role} size_bytes of all instances", group.sandbox);
                    Evidence::new("block", key, Quantity::Bytes(*bytes as f64))
                });
                let per_start = |sum: u64| sum as f64 / explained.len() as f64;
                Ok(Some(Told {
                    text: format!(
                        "waits for block devices: {}{}. All threads together make {:.0} requests, {}",
                        share.words(),
                        path.without("block_io"),
                        per_start(requests),
                        size(per_start(bytes))
                    ),
                    evidence: most.into_iter().collect(),
                    next_step: next_step(group).to_owned(),
                }))
            },
        )
    }
}

/// What was not in the page cache decides what can be done.
fn next_step(group: &Group) -> &'static str {
    match group.instances.first().map(|instance| instance.cache.as_str()) {
        Some("evicted") => {
            "The start reads its files from disk: keep them in the page cache (--cache primed shows what that brings), \
             make them smaller, or place them on a faster device."
        }
        Some("primed") => {
            "Its own files were in the page cache, so this is something else: files that the runtime reads or writes \
             besides, or another writer on the same disk. The table `block` has each request with its device and role."
        }
        _ => {
            "Run once with --cache primed and once with --cache evicted to see how much of it is files that are not cached."
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnose::{
        Quantity,
        testing::{Part, Scene, block},
    };

    #[test]
    fn a_start_that_reads_most_of_the_time_is_told_and_the_advice_fits_the_cache() {
        let mut scene = Scene::healthy();
        scene.spend("runc", 0.6, Part::of("block_io", "runtime").within("read").about("/a/data").by("device 8:0"));
        for instance in scene.instances_of("runc") {
            instance.cache = "evicted".to_owned();
            instance.cache_resident_pages_count = Some(0);
        }
        let probed = scene.probed("runc");
        scene.block.extend(probed.into_iter().flat_map(|id| [(id.clone(), block(8192)), (id, block(4096))]));
        let finding = scene.only_finding("block_io");
        assert!(finding.text.starts_with("For 60.4 % of a start"), "{}", finding.text);
        assert!(finding.text.contains("in read(…/data) "), "{}", finding.text);
        assert!(finding.text.ends_with("make 2 requests, 12.0 KiB"), "{}", finding.text);
        let last = finding.evidence.last().map(|row| row.value.clone());
        assert_eq!(last, Some(Quantity::Bytes(12.0 * 12.0 * 1024.0)));
        assert!(finding.next_step.contains("--cache primed"), "{}", finding.next_step);
    }
}
