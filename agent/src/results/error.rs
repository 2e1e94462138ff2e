//! Why results can't be read, in words that tell which file, what is wrong with it, and what to do.

use std::{io, path::PathBuf};

/// Why results can't be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not one that sandscope wrote.
    #[error(
        "{} holds no results of sandscope: there is no runs/run=…/part-….parquet in it; \
         `sandscope run` writes results into the directory given by --out",
        directory.display()
    )]
    NoResults {
        /// The directory.
        directory: PathBuf,
    },
    /// The results have no such run, or several.
    #[error("{} has {found} the run `{wanted}`; it has {}", directory.display(), runs.join(", "))]
    NoSuchRun {
        /// The directory.
        directory: PathBuf,
        /// What was asked for.
        wanted: String,
        /// How many there are: `not` or `more than one that begin like`.
        found: &'static str,
        /// Those that there are.
        runs: Vec<String>,
    },
    /// A file or directory can't be read.
    #[error("can't read {}: {reason}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        reason: io::Error,
    },
    /// A file is no Parquet, or not all of it.
    #[error(
        "{} is no complete Parquet file ({reason}); copy it again from where it came, or remove it to read the rest",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The Parquet reader's answer.
        reason: String,
    },
    /// A Parquet file of somebody else.
    #[error("{} was not written by sandscope: its metadata has no `schema_version`; remove it", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a later sandscope.
    #[error(
        "{} has version {version} of the schema, and this sandscope knows version {known}; read it by a sandscope that \
         is as new as the one that wrote it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version of the schema.
        version: u32,
        /// The version of this program.
        known: u32,
    },
    /// The run has no such table.
    #[error("the run {run} did not observe the table `{table}`")]
    NoTable {
        /// The run.
        run: String,
        /// The table.
        table: &'static str,
    },
    /// The run was written before results had what is asked for.
    #[error(
        "the run {run} was written by an earlier sandscope, whose results have no critical path (schema version {version})"
    )]
    NoPath {
        /// The run.
        run: String,
        /// Its version of the schema.
        version: u32,
    },
    /// A table lacks something that every row needs.
    #[error("{} can't be read as the table `{table}`: {reason}", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// What it lacks.
        reason: String,
    },
}

impl Error {
    /// Whether the run just lacks something that another run may have; all else is wrong with the files.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoTable { .. } | Self::NoPath { .. } | Self::Incomplete { .. })
    }
}
