//! The tables of the dataset. To add one, write it in the file of its concern and re-export its row here.

mod cpu;
mod io;
mod memory;
mod run;
mod slices;
mod step;
mod timeline;
mod window;

pub use cpu::{Exit, Sched, Syscall, Wakeup};
pub use io::{Block, BlockLatency, Fault, File, FileLatency, Net, Offload};
pub use memory::{GuestMemory, KernelMemory, Ksm, Memory, MemoryHost, Page, PageScan};
pub use run::{EventCount, Instance, Run};
pub use slices::{AttributionSlice, ConsoleLine, Counter, ExitEvent, ThreadSlice, VcpuSlice, WakeupFlow};
pub use step::{Activity, Answer, Cell, Latency, Outlier, Pickup, Response, Step, Traffic};
pub use timeline::{Attribution, Execution, HeldLock, Marker, Phase, Request, Sample, Saving};
pub use window::{GuestAddress, IdleState, PerfCounter, Preemption, Thread, Window};

use super::table::Table;

/// Every table of the dataset.
pub fn tables() -> impl Iterator<Item = &'static Table> {
    [
        run::TABLES,
        timeline::TABLES,
        cpu::TABLES,
        io::TABLES,
        memory::TABLES,
        slices::TABLES,
        step::TABLES,
        window::TABLES,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::tables;
    use std::collections::HashSet;

    /// Numeric columns that name or number a thing, so that they have no unit; and `value`, the unit of which is in a column
    /// of its own.
    const IDENTIFIERS: [&str; 20] = [
        "by_tid",
        "cpu",
        "error_code",
        "inode",
        "number",
        "parent_tgid",
        "position",
        "repetition",
        "schema_version",
        "sector",
        "seed",
        "status",
        "step",
        "tgid",
        "thread",
        "tid",
        "value",
        "vcpu",
        "waker_thread",
        "waker_tid",
    ];

    #[test]
    fn names_are_unique_and_in_snake_case() {
        let mut seen = HashSet::new();
        for table in tables() {
            assert!(seen.insert(table.name.to_owned()), "two tables are called {}", table.name);
            for column in table.columns() {
                let place = format!("{}.{}", table.name, column.name);
                assert!(place.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.')), "{place}");
                assert!(seen.insert(place.clone()), "{place} is there twice");
                assert_ne!(column.name, "run", "{place} clashes with the partition");
            }
        }
    }

    #[test]
    fn every_number_has_a_unit_or_is_an_identifier() {
        for table in tables() {
            for column in table.columns().filter(|column| column.kind.is_numeric()) {
                assert!(
                    column.unit().is_some() != IDENTIFIERS.contains(&column.name),
                    "{}.{} must end in _ns, _bytes, _count or _ratio, or be listed as an identifier",
                    table.name,
                    column.name
                );
            }
        }
    }

    #[test]
    fn everything_is_documented() {
        for table in tables() {
            assert!(table.documentation.ends_with('.'), "{}: {:?}", table.name, table.documentation);
            for column in table.columns() {
                let text = column.documentation;
                assert!(text.len() > 10 && text.ends_with('.'), "{}.{}: {text:?}", table.name, column.name);
                assert!(!text.contains('|'), "{}.{} would break the table of the page", table.name, column.name);
            }
        }
    }
}
