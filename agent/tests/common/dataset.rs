//! What a run has written, read as a stranger would: rows of named values.

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

/// A row of a table.
pub struct Row(BTreeMap<String, Field>);

impl Row {
    /// A whole number or a truth value (0 or 1); `None` is null.
    pub fn number(&self, column: &str) -> Option<i128> {
        match self.0.get(column).unwrap_or_else(|| panic!("there is no column {column}")) {
            Field::Null => None,
            Field::Bool(value) => Some((*value).into()),
            Field::Int(value) => Some((*value).into()),
            Field::Long(value) => Some((*value).into()),
            Field::UInt(value) => Some((*value).into()),
            Field::ULong(value) => Some((*value).into()),
            other => panic!("{column} is {other}, no number"),
        }
    }

    /// A text; null is empty.
    pub fn text(&self, column: &str) -> &str {
        match self.0.get(column).unwrap_or_else(|| panic!("there is no column {column}")) {
            Field::Null => "",
            Field::Str(value) => value,
            other => panic!("{column} is {other}, no text"),
        }
    }
}

/// Files of a table, of all runs.
pub fn parts(out: &Path, table: &str) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut parts: Vec<_> = entries(&out.join(table)).flat_map(|run| entries(&run).collect::<Vec<_>>()).collect();
    parts.sort();
    parts
}

/// All rows of a table.
pub fn rows(out: &Path, table: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for part in parts(out, table) {
        let file = File::open(&part).unwrap_or_else(|error| panic!("{}: {error}", part.display()));
        let reader = SerializedFileReader::new(file).unwrap_or_else(|error| panic!("{}: {error}", part.display()));
        for row in reader.get_row_iter(None).expect("a table has columns") {
            let row = row.unwrap_or_else(|error| panic!("{}: {error}", part.display()));
            rows.push(Row(row.into_columns().into_iter().collect()));
        }
    }
    rows
}

/// The sum of a column over rows, null counted as nothing.
pub fn sum<'a>(rows: impl IntoIterator<Item = &'a Row>, column: &str) -> i128 {
    rows.into_iter().filter_map(|row| row.number(column)).sum()
}
