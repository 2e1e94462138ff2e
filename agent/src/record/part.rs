//! A part: the rows of one table that go into one Parquet file, kept in memory as columns until the part is full.
//!
//! A Parquet file can't be appended to, so each flush writes the part anew as a whole. The bounds on a part therefore
//! bound both the memory that a table takes and the cost of a flush, however long a run is.

use super::{
    error::Error,
    storage,
    table::{Columns, Row},
};
use arrow_array::{ArrayRef, RecordBatch, StringArray, builder::StringBuilder};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
};
use std::{any::Any, sync::Arc};

/// When a part is full.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of a part.
    pub rows_count: usize,
    /// Memory of a part's rows.
    pub rows_bytes: usize,
}

impl Default for Limits {
    /// 100,000 rows or 32 MiB: a flush of the fullest part takes tens of milliseconds.
    fn default() -> Self {
        Self { rows_count: 100_000, rows_bytes: 32 << 20 }
    }
}

/// Rows of type `R` that belong into one file.
pub struct Part<R: Row> {
    instance_id: StringBuilder,
    columns: R::Columns,
    rows_count: usize,
    rows_bytes: usize,
}

impl<R: Row> Default for Part<R> {
    fn default() -> Self {
        Self { instance_id: StringBuilder::new(), columns: R::Columns::default(), rows_count: 0, rows_bytes: 0 }
    }
}

impl<R: Row> Part<R> {
    /// Appends a row about an instance, or about the run as a whole.
    ///
    /// # Errors
    /// When it has a number that files can't have; nothing is appended then.
    pub fn push(&mut self, instance_id: Option<&str>, row: &R) -> Result<(), Error> {
        if let Some((column, value)) = row.excess() {
            return Err(Error::Excess { table: R::TABLE.name, column, value });
        }
        self.instance_id.append_option(instance_id);
        self.rows_bytes += instance_id.map_or(0, str::len) + self.columns.push(row);
        self.rows_count += 1;
        Ok(())
    }

    fn batch(&self, run_id: &str) -> Result<RecordBatch, ParquetError> {
        let run_id = StringArray::from_iter_values(std::iter::repeat_n(run_id, self.rows_count));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(run_id), Arc::new(self.instance_id.finish_cloned())];
        for (column, rows) in R::TABLE.own_columns.iter().zip(self.columns.snapshot()) {
            columns.push(storage::to_files(rows, column.kind)?);
        }
        Ok(RecordBatch::try_new(Arc::new(R::TABLE.schema()), columns)?)
    }
}

/// A part, whatever its table.
pub trait AnyPart: Any + Send {
    /// Whether another row would exceed the limits.
    fn is_full(&self, limits: Limits) -> bool;

    /// Forgets all rows.
    fn clear(&mut self);

    /// The rows as a complete Parquet file with this key-value metadata.
    ///
    /// # Errors
    /// When the Parquet writer refuses them.
    fn encode(&self, run_id: &str, metadata: Vec<KeyValue>) -> Result<Vec<u8>, Error>;
}

impl<R: Row> AnyPart for Part<R> {
    fn is_full(&self, limits: Limits) -> bool {
        self.rows_count >= limits.rows_count || self.rows_bytes >= limits.rows_bytes
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn encode(&self, run_id: &str, metadata: Vec<KeyValue>) -> Result<Vec<u8>, Error> {
        // LZ4 because zstd costs hundreds of megabytes of memory in long recordings for little gain; a row group per
        // part because readers skip whole parts; no Arrow schema because the Parquet types say all there is to say.
        let properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_row_count(None)
            .set_key_value_metadata(Some(metadata))
            .build();
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true)
            .with_schema_root(R::TABLE.name.to_owned());
        let encode = || {
            let batch = self.batch(run_id)?;
            let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options)?;
            writer.write(&batch)?;
            writer.into_inner()
        };
        encode().map_err(|reason| Error::Encode { table: R::TABLE.name, reason })
    }
}
