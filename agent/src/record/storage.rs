//! Which type a column has in files, where that is not the type that the rows have.
//!
//! Rows count in unsigned numbers, which can't be negative by mistake. But whoever analyses results subtracts: one start from
//! another, what was planned from what was taken. Of unsigned columns that wraps around in most readers (polars, pandas) and
//! fails in others (DuckDB). So quantities are signed in files: times, lengths and counts, lists of them included. Numbers that
//! name something (a thread, an inode, a seed) stay unsigned: nobody subtracts them, and some need all 64 bits. Instants of the
//! real clock are timestamps, which readers show as dates.

use super::table::Kind;
use arrow_array::{
    Array, ArrayRef, ListArray,
    cast::AsArray,
    types::{Int64Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use std::sync::Arc;

/// Time zone of timestamps.
pub(super) const UTC: &str = "UTC";

/// What the name of a quantity ends in, and the unit that this means.
const UNITS: [(&str, &str); 4] = [("ns", "ns"), ("bytes", "bytes"), ("count", "count"), ("ratio", "1")];

/// Unit of a column's values as the end of its name tells it.
pub(super) const fn unit(column: &str) -> Option<&'static str> {
    let mut place = 0;
    while place < UNITS.len() {
        if has_last_word(column, UNITS[place].0) {
            return Some(UNITS[place].1);
        }
        place += 1;
    }
    None
}

/// The type that a column of this name has in files when its rows have another.
pub(super) const fn in_files(kind: Kind, column: &str) -> Kind {
    // The unit of a `value` is in another column.
    let is_quantity = unit(column).is_some() || has_last_word(column, "value");
    match kind {
        Kind::Int64 if has_last_word(column, "unix_ns") => Kind::Timestamp,
        Kind::UInt16 | Kind::UInt32 | Kind::UInt64 if is_quantity => Kind::Int64,
        Kind::UInt64List if is_quantity => Kind::Int64List,
        kind => kind,
    }
}

/// Whether a name is these words, or ends in them after an underscore.
const fn has_last_word(name: &str, words: &str) -> bool {
    let (name, words) = (name.as_bytes(), words.as_bytes());
    let Some(before) = name.len().checked_sub(words.len()) else { return false };
    let mut place = 0;
    while place < words.len() {
        if name[before + place] != words[place] {
            return false;
        }
        place += 1;
    }
    before == 0 || name[before - 1] == b'_'
}

/// A value that is larger than any that a quantity has in files.
pub(super) const fn exceeds(value: u64) -> bool {
    value > i64::MAX.cast_unsigned()
}

/// Values of rows as files have them.
///
/// # Errors
/// When one is beyond the type of the file.
pub(super) fn to_files(rows: ArrayRef, kind: Kind) -> Result<ArrayRef, ArrowError> {
    Ok(match (rows.data_type(), kind) {
        (DataType::UInt16, Kind::Int64) => Arc::new(rows.as_primitive::<UInt16Type>().unary::<_, Int64Type>(i64::from)),
        (DataType::UInt32, Kind::Int64) => Arc::new(rows.as_primitive::<UInt32Type>().unary::<_, Int64Type>(i64::from)),
        (DataType::UInt64, Kind::Int64) => {
            Arc::new(rows.as_primitive::<UInt64Type>().try_unary::<_, Int64Type, _>(narrowed)?)
        }
        (DataType::List(_), Kind::Int64List) => elements(&rows, kind, |elements| to_files(elements, Kind::Int64))?,
        (DataType::Int64, Kind::Timestamp) => {
            let instants = rows.as_primitive::<Int64Type>().reinterpret_cast::<TimestampNanosecondType>();
            Arc::new(instants.with_timezone(UTC))
        }
        _ => rows,
    })
}

/// Values of a file as rows have them. Files of earlier versions, whose types are those of rows, need nothing; what is of a type that
/// no version had stays as it is.
///
/// # Errors
/// When one is negative or beyond the type of the rows.
pub(super) fn to_rows(file: &ArrayRef, kind: Kind) -> Result<ArrayRef, ArrowError> {
    Ok(match (file.data_type(), kind) {
        (DataType::Int64, Kind::UInt16) => {
            Arc::new(file.as_primitive::<Int64Type>().try_unary::<_, UInt16Type, _>(narrowed)?)
        }
        (DataType::Int64, Kind::UInt32) => {
            Arc::new(file.as_primitive::<Int64Type>().try_unary::<_, UInt32Type, _>(narrowed)?)
        }
        (DataType::Int64, Kind::UInt64) => {
            Arc::new(file.as_primitive::<Int64Type>().try_unary::<_, UInt64Type, _>(narrowed)?)
        }
        (DataType::List(element), Kind::UInt64List) if *element.data_type() == DataType::Int64 => {
            elements(file, kind, |elements| to_rows(&elements, Kind::UInt64))?
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, _), Kind::Int64) => {
            Arc::new(file.as_primitive::<TimestampNanosecondType>().reinterpret_cast::<Int64Type>())
        }
        _ => file.clone(),
    })
}

/// A number in another type.
fn narrowed<From: Copy + ToString, To: TryFrom<From>>(value: From) -> Result<To, ArrowError> {
    To::try_from(value).map_err(|_| ArrowError::CastError(format!("{} is out of range", value.to_string())))
}

/// Lists with their elements in another type.
fn elements(
    lists: &ArrayRef,
    kind: Kind,
    convert: impl FnOnce(ArrayRef) -> Result<ArrayRef, ArrowError>,
) -> Result<ArrayRef, ArrowError> {
    let (_, offsets, elements, nulls) = lists.as_list::<i32>().clone().into_parts();
    let DataType::List(field) = kind.data_type() else { return Ok(lists.clone()) };
    Ok(Arc::new(ListArray::try_new(field, offsets, convert(elements)?, nulls)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, UInt32Array, UInt64Array};

    #[test]
    fn quantities_are_signed_and_names_are_not() {
        for quantity in ["wall_ns", "count", "good_count", "size_bytes", "value"] {
            assert_eq!(in_files(Kind::UInt64, quantity), Kind::Int64, "{quantity}");
            assert_eq!(in_files(Kind::UInt32, quantity), Kind::Int64, "{quantity}");
        }
        for name in ["seed", "inode", "sector", "tid", "account", "evalue", "bytesize", ""] {
            assert_eq!(in_files(Kind::UInt64, name), Kind::UInt64, "{name}");
        }
        assert_eq!(in_files(Kind::UInt64List, "bucket_floor_ns"), Kind::Int64List);
        assert_eq!(in_files(Kind::Int64, "started_at_unix_ns"), Kind::Timestamp);
        assert_eq!(in_files(Kind::Int64, "launched_at_monotonic_ns"), Kind::Int64);
    }

    #[test]
    fn numbers_come_back_through_the_type_of_files_with_their_nulls() {
        let counts: ArrayRef = Arc::new(UInt32Array::from(vec![Some(7), None, Some(u32::MAX)]));
        let stored = to_files(counts.clone(), Kind::Int64).unwrap();
        assert_eq!(stored.as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(7), None, Some(4_294_967_295)]));
        assert_eq!(&to_rows(&stored, Kind::UInt32).unwrap(), &counts);
        let instants: ArrayRef = Arc::new(Int64Array::from(vec![Some(1_700_000_000_123_456_789), None]));
        let stored = to_files(instants.clone(), Kind::Timestamp).unwrap();
        assert_eq!(stored.data_type(), &Kind::Timestamp.data_type());
        assert_eq!(&to_rows(&stored, Kind::Int64).unwrap(), &instants);
    }

    #[test]
    fn what_does_not_fit_is_refused_in_both_directions() {
        let wrapped: ArrayRef = Arc::new(UInt64Array::from(vec![1, u64::MAX]));
        assert!(
            to_files(wrapped, Kind::Int64).unwrap_err().to_string().contains("18446744073709551615 is out of range")
        );
        let negative: ArrayRef = Arc::new(Int64Array::from(vec![-1]));
        assert!(to_rows(&negative, Kind::UInt64).unwrap_err().to_string().contains("-1 is out of range"));
        assert!(exceeds(1 << 63) && !exceeds((1 << 63) - 1));
    }
}
