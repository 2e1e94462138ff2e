//! Reads one Parquet file as rows of a table, by the declaration that the writer has.

use super::Error;
use crate::record::{Row, SCHEMA_VERSION};
use arrow_array::{Array, StringArray, cast::AsArray};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder},
    file::metadata::ParquetMetaData,
};
use std::{fs::File, path::Path};

/// The rows of a file, and what they are about.
pub(super) struct Content<R> {
    /// With the identifier of the instance, which rows about a run do not have.
    pub(super) rows: Vec<(String, R)>,
    /// Columns that today's tables have and the file has not.
    pub(super) missing: Vec<&'static str>,
}

/// Reads a file.
pub(super) fn read<R: Row>(path: &Path) -> Result<Content<R>, Error> {
    let file = File::open(path).map_err(|reason| Error::File { path: path.to_owned(), reason })?;
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let incomplete = |reason| Error::Incomplete { path: path.to_owned(), table: R::TABLE.name, reason };
    let metadata = ArrowReaderMetadata::load(&file, Default::default()).map_err(|error| damaged(error.to_string()))?;
    check_version(path, metadata.metadata())?;
    let has = |name: &str| metadata.schema().column_with_name(name).is_some();
    let missing = R::TABLE.columns().map(|column| column.name).filter(|name| !has(name)).collect();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).build();
    let mut rows = Vec::new();
    for batch in reader.map_err(|error| damaged(error.to_string()))? {
        let batch = batch.map_err(|error| damaged(error.to_string()))?;
        let instances = batch.column_by_name("instance_id").and_then(|column| column.as_string_opt::<i32>());
        let read = R::read(&batch).map_err(incomplete)?;
        rows.extend((0..).map(|row| instance(instances, row)).zip(read));
    }
    Ok(Content { rows, missing })
}

/// The instance that a row is about; empty where it is about the run.
fn instance(column: Option<&StringArray>, row: usize) -> String {
    column.filter(|column| !column.is_null(row)).map_or_else(String::new, |column| column.value(row).to_owned())
}

/// Refuses what sandscope did not write, and what a later one wrote.
fn check_version(path: &Path, metadata: &ParquetMetaData) -> Result<(), Error> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let version = pairs.into_iter().flatten().find(|pair| pair.key == "schema_version");
    let version = version.and_then(|pair| pair.value.as_deref()?.parse::<u32>().ok());
    let version = version.ok_or_else(|| Error::Foreign { path: path.to_owned() })?;
    if version > SCHEMA_VERSION {
        return Err(Error::Newer { path: path.to_owned(), version, known: SCHEMA_VERSION });
    }
    Ok(())
}
