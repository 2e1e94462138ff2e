//! What can go wrong while recording, in words that tell which file, which operation, why, and what to do.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Why something could not be recorded. What was recorded before stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("can't {operation} {}: {reason}{}", path.display(), remedy(reason))]
    File {
        /// What was to be done, such as "write".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The answer.
        reason: io::Error,
    },
    /// The Parquet writer refused rows.
    #[error("can't encode rows of the table `{table}` as Parquet: {reason}")]
    Encode {
        /// The table.
        table: &'static str,
        /// The answer.
        reason: parquet::errors::ParquetError,
    },
    /// A row has a number that is no time, length or count.
    #[error(
        "can't write {value} into the column `{column}` of the table `{table}`: that is more than {}, and what a subtraction \
         below zero gives; this is an error of sandscope: please report it with this text",
        i64::MAX
    )]
    Excess {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The number.
        value: u64,
    },
}

impl Error {
    /// Makes an error of the system's answer to an operation on a path.
    pub(super) fn file(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |reason| Self::File { operation, path: path.as_ref().to_owned(), reason }
    }
}

/// What a person can do about it.
fn remedy(reason: &io::Error) -> &'static str {
    match reason.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free some space there, or choose another directory by --out"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; choose a directory by --out that you may write to"
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "; there is a file where a directory has to be: choose another directory by --out"
        }
        ErrorKind::CrossesDevices => "; all tables and the directory `.unfinished` must be on one file system",
        _ => "",
    }
}
