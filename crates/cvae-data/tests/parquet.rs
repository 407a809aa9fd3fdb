//! Parquet files: what is written is read back, every column type, and damage of every kind.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{file, load, load_with, read_chunks};
use cvae_data::{ArrayWriter, DataError, LoadOptions, check_output, write_array};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

/// A table of five rows with a null, an unsigned column and names as labels, in two row groups.
fn mixed(path: &Path, compression: Compression) {
    let schema = "message rows {
        required double a;
        optional int64 b;
        required int32 c (INTEGER(32, false));
        required binary class (UTF8);
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for (a, b, levels, c, class) in [
        (vec![1.5, 2.5, 3.5], vec![-7, 8], vec![1, 0, 1], vec![-1, 0, 1], vec!["wasp", "bee", "wasp"]),
        (vec![4.5, 5.5], vec![9, 10], vec![1, 1], vec![2, 3], vec!["ant", "bee"]),
    ] {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&a, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&b, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&c, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let class: Vec<ByteArray> = class.into_iter().map(ByteArray::from).collect();
        column.typed::<ByteArrayType>().write_batch(&class, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn columns_of_every_type_in_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let options = LoadOptions { allow_nan: true, ..LoadOptions::default() };
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
    ] {
        mixed(&path, compression);
        let data = load_with(&path, &options).unwrap();
        assert_eq!((data.rows(), data.width()), (5, 3));
        assert_eq!(data.feature_names().unwrap(), ["a", "b", "c"]);
        assert_eq!(data.labels(), Some([2, 1, 2, 0, 1].as_slice()));
        assert_eq!(data.class_names().unwrap(), ["ant", "bee", "wasp"]);
        let values = data.to_f32();
        assert!(values[4].is_nan());
        let unsigned = u32::MAX as f32;
        assert_eq!(values[..4], [1.5, -7.0, unsigned, 2.5]);
        assert_eq!(values[5..], [0.0, 3.5, 8.0, 1.0, 4.5, 9.0, 2.0, 5.5, 10.0, 3.0]);
    }
    let error = load(&path).unwrap_err().to_string();
    let message = "row 1, column 1 (counted from 0) is empty";
    assert_eq!(error, format!("{}: {message}", path.display()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn written_arrays_are_read_back_bit_for_bit(
        width in 1usize..6,
        values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 6..200),
        chunk in 1usize..7,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let values = &values[..values.len() / width * width];
        let mut writer = ArrayWriter::create(&path, width, "z").unwrap();
        for part in values.chunks(chunk * width) {
            writer.write(part).unwrap();
        }
        prop_assert_eq!(writer.finish().unwrap() as usize, values.len() / width);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let data = load(&path).unwrap();
        prop_assert_eq!(&data.feature_names().unwrap()[0], "z0");
        prop_assert_eq!(bits(&data.to_f32()), bits(values));
        prop_assert_eq!(bits(&read_chunks(&path, chunk).unwrap()), bits(values));
    }

    #[test]
    fn damage_is_an_error_or_harmless(position in any::<prop::sample::Index>(), flip in 1u8.., cut: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        mixed(&path, Compression::SNAPPY);
        let mut bytes = fs::read(&path).unwrap();
        let position = position.index(bytes.len());
        if cut {
            bytes.truncate(position);
        } else {
            bytes[position] ^= flip;
        }
        fs::write(&path, &bytes).unwrap();
        match load(&path) {
            Ok(data) => prop_assert_eq!(data.width(), 3),
            Err(error) => prop_assert!(error.to_string().contains("a.parquet"), "{}", error),
        }
    }
}

#[test]
fn row_groups_are_cut_by_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    // 9 rows of 1 Mi values: a group of 32 MiB holds 8.
    let width = 1 << 10;
    let rows = 9 << 10;
    let values: Vec<f32> = (0..width * rows).map(|i| (i % 1000) as f32).collect();
    write_array(&path, width, &values, "z").unwrap();
    let data = load(&path).unwrap();
    assert_eq!(data.to_f32()[..], values[..]);
}

#[test]
fn bad_files_are_named_with_their_fault() {
    let folder = tempfile::tempdir().unwrap();
    let write = |schema: &str| {
        let path = folder.path().join("a.parquet");
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = fs::File::create(&path).unwrap();
        let writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
        writer.close().unwrap();
        path
    };
    let message = |path: &Path| {
        let error = load(path).unwrap_err().to_string();
        error.replace(&path.display().to_string(), "FILE")
    };
    for (schema, expected) in [
        ("message m { required float a; }", "FILE: no rows"),
        ("message m { required binary label (UTF8); }", "FILE: no feature columns"),
        (
            "message m { required binary text (UTF8); }",
            "FILE: column `text` holds BYTE_ARRAY values; numbers are needed (and in a column `label`, names may stand)",
        ),
        (
            "message m { required int32 day (DATE); }",
            "FILE: column `day` holds INT32 values; numbers are needed (and in a column `label`, names may stand)",
        ),
        (
            "message m { repeated float z; }",
            "FILE: column `z` holds list values; numbers are needed (and in a column `label`, names may stand)",
        ),
        (
            "message m { required int32 label; required int32 Target; required float a; }",
            "FILE: both `label` and `Target` look like the label column; keep one",
        ),
    ] {
        assert_eq!(message(&write(schema)), expected);
    }
    let empty = file(folder.path(), "b.parquet", b"");
    assert_eq!(message(&empty), "FILE: the file is empty");
    let text = file(folder.path(), "c.parquet", b"a,b\n1,2\n");
    assert_eq!(message(&text), "FILE: not a Parquet file: its first bytes are [61, 2c, 62, 0a]");
    let absent = folder.path().join("absent.parquet");
    assert!(matches!(load(&absent), Err(DataError::NotFound { .. })));
    check_output(&absent).unwrap();
}
