//! Results as an earlier version of the schema had them: the same values in the types of that version, under its number.

use arrow_array::{
    Array, ArrayRef, ListArray, RecordBatch, UInt32Array,
    cast::AsArray,
    types::{Int64Type, TimestampNanosecondType, UInt32Type, UInt64Type},
};
use arrow_schema::{DataType, Field, Schema};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder, arrow_writer::ArrowWriterOptions},
    file::{metadata::KeyValue, properties::WriterProperties},
};
use serde_json::Value;
use std::{fs, path::Path, sync::Arc};

/// Columns of versions 1 and 2 that had another type than today's.
const TYPES: &str = include_str!("../../../analysis/tests/types_of_version_2.json");

/// Rewrites all files of a directory of results as version 1 or 2 had them.
pub fn rewrite(results: &Path, version: u32) {
    let types: Value = serde_json::from_str(TYPES).unwrap();
    let folders = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for table in folders(results).into_iter().filter(|path| !path.ends_with(".unfinished")) {
        let name = table.file_name().unwrap().to_str().unwrap();
        for part in folders(&table).iter().flat_map(|run| folders(run)) {
            rewrite_part(&part, &types[name], version);
        }
    }
}

fn rewrite_part(path: &Path, types: &Value, version: u32) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches = reader.build().unwrap().map(Result::unwrap);
    let former = |column: &str, values: &ArrayRef| -> ArrayRef {
        if column == "schema_version" {
            return Arc::new(UInt32Array::from(vec![version; values.len()]));
        }
        // What was rewritten before has these types already.
        let today = match values.data_type() {
            DataType::List(element) => element.data_type(),
            other => other,
        };
        match types[column].as_str().filter(|_| matches!(today, DataType::Int64 | DataType::Timestamp(..))) {
            Some("int64") if *today == DataType::Int64 => values.clone(),
            None => values.clone(),
            Some("uint32") => {
                Arc::new(values.as_primitive::<Int64Type>().unary::<_, UInt32Type>(|n| n.try_into().unwrap()))
            }
            Some("uint64") => Arc::new(values.as_primitive::<Int64Type>().unary::<_, UInt64Type>(i64::cast_unsigned)),
            Some("int64") => Arc::new(values.as_primitive::<TimestampNanosecondType>().reinterpret_cast::<Int64Type>()),
            Some("list<uint64>") => {
                let (_, offsets, elements, nulls) = values.as_list::<i32>().clone().into_parts();
                let elements = elements.as_primitive::<Int64Type>().unary::<_, UInt64Type>(i64::cast_unsigned);
                let field = Arc::new(Field::new("element", DataType::UInt64, false));
                Arc::new(ListArray::new(field, offsets, Arc::new(elements), nulls))
            }
            Some(other) => panic!("{column} was {other}"),
        }
    };
    let batches: Vec<RecordBatch> = batches
        .map(|batch| {
            let columns =
                schema.fields().iter().zip(batch.columns()).map(|(field, column)| former(field.name(), column));
            let columns: Vec<ArrayRef> = columns.collect();
            let fields = schema.fields().iter().zip(&columns);
            let fields =
                fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), field.is_nullable()));
            RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap()
        })
        .collect();
    let Some(first) = batches.first() else { return };
    let metadata = vec![KeyValue::new("schema_version".to_owned(), version.to_string())];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new_with_options(file, first.schema(), options).unwrap();
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
}
