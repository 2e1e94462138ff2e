//! What sandscope writes down: the schema in one place, the Parquet dataset, and the manifest of a run.
//!
//! Parquet is the interface to everybody who analyses the results, so names, units and meanings are documented where
//! they are defined ([`mod@tables`]), and the page that people read is generated from there.

mod dataset;
mod documentation;
mod error;
mod host;
mod manifest;
mod part;
mod storage;
mod table;
pub mod tables;

pub use dataset::Dataset;
pub use documentation::{schema_json, schema_markdown};
pub use error::Error;
pub use host::Host;
pub use manifest::{Artifact, Manifest, Outcome, Probes, command_line, unix_ns};
pub use part::Limits;
pub use table::{Cells, Column, Kind, OfInstance, OfRun, Row, Subject, Table};

/// Version of the schema: one more whenever a column or table is removed, renamed or changes its type or meaning. New
/// tables leave it as it is, and so do new columns that can be null; what was written before has null there.
pub const SCHEMA_VERSION: u32 = 3;
