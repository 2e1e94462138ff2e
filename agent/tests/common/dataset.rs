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
        match self.field(column) {
            Field::Null => None,
            field => Some(number(field).unwrap_or_else(|| panic!("{column} is {field}, no number"))),
        }
    }

    /// A list of whole numbers.
    pub fn numbers(&self, column: &str) -> Vec<i128> {
        match self.field(column) {
            Field::ListInternal(list) => list.elements().iter().filter_map(number).collect(),
            other => panic!("{column} is {other}, no list"),
        }
    }

    fn field(&self, column: &str) -> &Field {
        self.0.get(column).unwrap_or_else(|| panic!("there is no column {column}"))
    }

    /// A text; null is empty.
    pub fn text(&self, column: &str) -> &str {
        match self.field(column) {
            Field::Null => "",
            Field::Str(value) => value,
            other => panic!("{column} is {other}, no text"),
        }
    }
}

fn number(field: &Field) -> Option<i128> {
    match field {
        Field::Bool(value) => Some((*value).into()),
        Field::Int(value) => Some((*value).into()),
        Field::Long(value) => Some((*value).into()),
        Field::UInt(value) => Some((*value).into()),
        Field::ULong(value) => Some((*value).into()),
        _ => None,
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
