//! What a table is: the macro with which one is written, once, as a documented struct, and all that follows from it.
//!
//! The struct is the row that the rest of the agent fills in. Its name, columns, types, nullability and documentation
//! make the Parquet schema and the text of `sandscope schema`, so none of them can drift from the code. The columns
//! `run_id` and `instance_id`, which every table starts with, are not written with the table: the dataset knows them.

use super::storage;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    UInt16Array, UInt32Array, UInt64Array,
    builder::{
        ArrayBuilder, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, ListBuilder, StringBuilder,
        UInt16Builder, UInt32Builder, UInt64Builder,
    },
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use std::{fmt, sync::Arc};

/// A table of the dataset.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name, which is also its directory.
    pub name: &'static str,
    /// What one of its rows is.
    pub documentation: &'static str,
    /// What its rows are about.
    pub subject: Subject,
    /// Its own columns, without those that every table starts with.
    pub own_columns: &'static [Column],
}

impl Table {
    /// All columns in the order of the file.
    pub fn columns(&self) -> impl Iterator<Item = Column> + use<> {
        let instance_id = match self.subject {
            Subject::Run => {
                Column::of::<Option<String>>("instance_id", "Null: these rows are about the run as a whole.")
            }
            Subject::Instance => Column::of::<String>("instance_id", "The instance; unique in the dataset."),
        };
        let run_id = Column::of::<String>("run_id", "The run, a ULID; the partition `run` has the same value.");
        [run_id, instance_id].into_iter().chain(self.own_columns.iter().copied())
    }

    /// The same for Arrow.
    pub fn schema(&self) -> Schema {
        let field = |column: Column| Field::new(column.name, column.kind.data_type(), column.nullable);
        Schema::new(self.columns().map(field).collect::<Vec<_>>())
    }
}

/// What the rows of a table are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The run as a whole.
    Run,
    /// One instance.
    Instance,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name, which ends in the unit where there is one.
    pub name: &'static str,
    /// Type of its values in files.
    pub kind: Kind,
    /// Whether a value may be missing, which means "not measured" or "does not apply", never zero.
    pub nullable: bool,
    /// What the values mean.
    pub documentation: &'static str,
}

impl Column {
    /// The column that holds values of type `V` in rows.
    pub const fn of<V: Value>(name: &'static str, documentation: &'static str) -> Self {
        Self {
            name,
            kind: storage::in_files(V::KIND, name),
            nullable: V::NULLABLE,
            documentation: documentation.trim_ascii(),
        }
    }

    /// Unit of the values as the end of the name tells it.
    pub fn unit(&self) -> Option<&'static str> {
        storage::unit(self.name)
    }
}

/// Type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// 16 bits, unsigned.
    UInt16,
    /// 32 bits, unsigned.
    UInt32,
    /// 64 bits, unsigned.
    UInt64,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// IEEE 754, 64 bits.
    Float64,
    /// UTF-8 text.
    String,
    /// Nanoseconds since the Unix epoch.
    Timestamp,
    /// Any number of [`Kind::UInt64`], none of them null.
    UInt64List,
    /// Any number of [`Kind::Int64`], none of them null.
    Int64List,
}

impl Kind {
    /// The same for Arrow.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::UInt16 => DataType::UInt16,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::String => DataType::Utf8,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Nanosecond, Some(storage::UTC.into())),
            Self::UInt64List => DataType::List(list_element(DataType::UInt64)),
            Self::Int64List => DataType::List(list_element(DataType::Int64)),
        }
    }

    /// Whether the values are numbers or lists of them.
    pub fn is_numeric(self) -> bool {
        !matches!(self, Self::Bool | Self::String)
    }
}

impl fmt::Display for Kind {
    /// The name that Arrow's readers show.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Bool => "bool",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::String => "string",
            Self::Timestamp => "timestamp[ns, tz=UTC]",
            Self::UInt64List => "list<uint64>",
            Self::Int64List => "list<int64>",
        })
    }
}

/// The field inside a list, named as the Parquet specification names it.
fn list_element(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", data_type, false))
}

/// A type that a column can have.
pub trait Value: Sized {
    /// Collects such values.
    type Builder: ArrayBuilder;
    /// Holds such values after they were read.
    type Array: Array + Clone + 'static;
    /// The type that rows have.
    const KIND: Kind;
    /// Whether a value may be missing.
    const NULLABLE: bool;

    /// An empty builder.
    fn builder() -> Self::Builder;

    /// Appends a value, or a null, and returns how many bytes it takes in memory.
    fn push(value: Option<&Self>, builder: &mut Self::Builder) -> usize;

    /// The number in it that is too large for a quantity in files, if there is one.
    fn excess(&self) -> Option<u64> {
        None
    }

    /// The value in a row of a column, or of one that the file does not have; `None` where there must be one and is not.
    fn read(column: Option<&Self::Array>, row: usize) -> Option<Self>;
}

/// The column, if it has a value in this row.
fn present<A: Array>(column: Option<&A>, row: usize) -> Option<&A> {
    column.filter(|column| !column.is_null(row))
}

/// Implements [`Value`] for types of fixed size.
macro_rules! fixed_size_values {
    ($($type:ty => $builder:ty, $array:ty, $kind:ident $(, $excess:expr)?;)+) => {$(
        impl Value for $type {
            type Builder = $builder;
            type Array = $array;
            const KIND: Kind = Kind::$kind;
            const NULLABLE: bool = false;

            fn builder() -> Self::Builder {
                <$builder>::new()
            }

            fn push(value: Option<&Self>, builder: &mut Self::Builder) -> usize {
                builder.append_option(value.copied());
                size_of::<Self>()
            }

            $(
                fn excess(&self) -> Option<u64> {
                    let excess: fn(u64) -> bool = $excess;
                    Some(*self).filter(|value| excess(*value))
                }
            )?

            fn read(column: Option<&Self::Array>, row: usize) -> Option<Self> {
                Some(present(column, row)?.value(row))
            }
        }
    )+};
}

fixed_size_values! {
    bool => BooleanBuilder, BooleanArray, Bool;
    u16 => UInt16Builder, UInt16Array, UInt16;
    u32 => UInt32Builder, UInt32Array, UInt32;
    u64 => UInt64Builder, UInt64Array, UInt64, storage::exceeds;
    i32 => Int32Builder, Int32Array, Int32;
    i64 => Int64Builder, Int64Array, Int64;
    f64 => Float64Builder, Float64Array, Float64;
}

/// Bytes that each value of variable size takes in memory beside its content.
const OFFSET_BYTES: usize = size_of::<i32>();

impl Value for String {
    type Builder = StringBuilder;
    type Array = StringArray;
    const KIND: Kind = Kind::String;
    const NULLABLE: bool = false;

    fn builder() -> Self::Builder {
        StringBuilder::new()
    }

    fn push(value: Option<&Self>, builder: &mut Self::Builder) -> usize {
        builder.append_option(value);
        value.map_or(0, String::len) + OFFSET_BYTES
    }

    fn read(column: Option<&Self::Array>, row: usize) -> Option<Self> {
        Some(present(column, row)?.value(row).to_owned())
    }
}

impl Value for Vec<u64> {
    type Builder = ListBuilder<UInt64Builder>;
    type Array = ListArray;
    const KIND: Kind = Kind::UInt64List;
    const NULLABLE: bool = false;

    fn builder() -> Self::Builder {
        ListBuilder::new(UInt64Builder::new()).with_field(list_element(DataType::UInt64))
    }

    fn push(value: Option<&Self>, builder: &mut Self::Builder) -> usize {
        if let Some(elements) = value {
            builder.values().append_slice(elements);
        }
        builder.append(value.is_some());
        value.map_or(0, |elements| size_of_val(elements.as_slice())) + OFFSET_BYTES
    }

    fn excess(&self) -> Option<u64> {
        self.iter().find_map(Value::excess)
    }

    fn read(column: Option<&Self::Array>, row: usize) -> Option<Self> {
        let elements = present(column, row)?.value(row);
        elements.as_any().downcast_ref::<UInt64Array>().map(|elements| elements.values().to_vec())
    }
}

impl<V: Value> Value for Option<V> {
    type Builder = V::Builder;
    type Array = V::Array;
    const KIND: Kind = V::KIND;
    const NULLABLE: bool = true;

    fn builder() -> Self::Builder {
        V::builder()
    }

    fn push(value: Option<&Self>, builder: &mut Self::Builder) -> usize {
        V::push(value.and_then(Self::as_ref), builder)
    }

    fn excess(&self) -> Option<u64> {
        self.as_ref().and_then(Value::excess)
    }

    fn read(column: Option<&Self::Array>, row: usize) -> Option<Self> {
        match present(column, row) {
            None => Some(None),
            column => V::read(column, row).map(Some),
        }
    }
}

/// Whether a column of unsigned values is signed in files.
pub(in crate::record) const fn is_signed<V: Value>(name: &str) -> bool {
    matches!(storage::in_files(V::KIND, name), Kind::Int64 | Kind::Int64List)
}

/// A row of a table.
pub trait Row: Sized + 'static {
    /// The table.
    const TABLE: Table;
    /// Collects such rows.
    type Columns: Columns<Self>;

    /// The first column, and the number in it, that is too large for files. Such a number is no quantity that anybody has measured,
    /// but what became of a negative one.
    fn excess(&self) -> Option<(&'static str, u64)>;

    /// The rows of a batch, whose columns may be in any order; where it lacks one that can be null, all rows have null.
    ///
    /// # Errors
    /// When a column is missing, of another type or null where that can't be; says which.
    fn read(batch: &RecordBatch) -> Result<Vec<Self>, String>;
}

/// A column of a batch, being read.
pub struct Cells<V: Value> {
    name: &'static str,
    array: Option<V::Array>,
}

impl<V: Value> Cells<V> {
    /// The column of this name.
    ///
    /// # Errors
    /// When it has values of another type, or one that rows can't have.
    pub fn of(batch: &RecordBatch, name: &'static str) -> Result<Self, String> {
        let Some(column) = batch.column_by_name(name) else { return Ok(Self { name, array: None }) };
        let array = storage::to_rows(column, V::KIND).map_err(|reason| format!("its column `{name}`: {reason}"))?;
        let stored = storage::in_files(V::KIND, name).data_type();
        let wrong = || format!("its column `{name}` is {}, not {stored}", column.data_type());
        Ok(Self { name, array: Some(array.as_any().downcast_ref().cloned().ok_or_else(wrong)?) })
    }

    /// The value in a row of the batch.
    ///
    /// # Errors
    /// When there must be one and is not.
    pub fn read(&self, row: usize) -> Result<V, String> {
        V::read(self.array.as_ref(), row).ok_or_else(|| match self.array {
            None => format!("it has no column `{}`", self.name),
            Some(_) => format!("its column `{}` has no value in row {row}", self.name),
        })
    }
}

/// A row of a table about the run as a whole.
pub trait OfRun: Row {}

/// A row of a table about instances.
pub trait OfInstance: Row {}

/// The own columns of a table, being filled.
pub trait Columns<R: ?Sized>: Default + Send {
    /// Appends a row and returns how many bytes it takes in memory.
    fn push(&mut self, row: &R) -> usize;

    /// A copy of all rows so far, column by column, in the types of rows.
    fn snapshot(&self) -> Vec<ArrayRef>;
}

/// Defines tables: `table NAME = ROW of run|instance { COLUMN: TYPE, … }`, all documented, and `TABLES`, the list of
/// them.
macro_rules! tables {
    ($(
        $(#[doc = $about:literal])+
        table $table:ident = $row:ident of $subject:ident { $($(#[doc = $text:literal])+ $column:ident: $type:ty,)+ }
    )+) => {
        /// The tables of this file.
        pub(super) const TABLES: &[$crate::record::table::Table] =
            &[$(<$row as $crate::record::table::Row>::TABLE),+];

        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, Default, PartialEq)]
            pub struct $row {
                $($(#[doc = $text])+ pub $column: $type,)+
            }

            const _: () = {
                use $crate::record::table;

                /// One builder per column.
                pub struct Columns {
                    $($column: <$type as table::Value>::Builder,)+
                }

                impl Default for Columns {
                    fn default() -> Self {
                        Self { $($column: <$type as table::Value>::builder(),)+ }
                    }
                }

                impl table::Columns<$row> for Columns {
                    fn push(&mut self, row: &$row) -> usize {
                        0 $(+ <$type as table::Value>::push(Some(&row.$column), &mut self.$column))+
                    }

                    fn snapshot(&self) -> Vec<arrow_array::ArrayRef> {
                        vec![$(arrow_array::builder::ArrayBuilder::finish_cloned(&self.$column)),+]
                    }
                }

                impl table::Row for $row {
                    const TABLE: table::Table = table::Table {
                        name: stringify!($table),
                        documentation: concat!($($about),+).trim_ascii(),
                        subject: table::tables!(@subject $subject),
                        own_columns: &[
                            $(table::Column::of::<$type>(stringify!($column), concat!($($text),+))),+
                        ],
                    };
                    type Columns = Columns;

                    fn excess(&self) -> Option<(&'static str, u64)> {
                        $(if table::is_signed::<$type>(stringify!($column))
                            && let Some(value) = table::Value::excess(&self.$column)
                        {
                            return Some((stringify!($column), value));
                        })+
                        None
                    }

                    fn read(batch: &arrow_array::RecordBatch) -> Result<Vec<Self>, String> {
                        $(let $column = table::Cells::<$type>::of(batch, stringify!($column))?;)+
                        let row = |row| Ok($row { $($column: $column.read(row)?,)+ });
                        (0..batch.num_rows()).map(row).collect()
                    }
                }

                table::tables!(@marker $subject $row);
            };
        )+
    };
    (@subject run) => { table::Subject::Run };
    (@subject instance) => { table::Subject::Instance };
    (@marker run $row:ident) => { impl table::OfRun for $row {} };
    (@marker instance $row:ident) => { impl table::OfInstance for $row {} };
}
pub(in crate::record) use tables;
