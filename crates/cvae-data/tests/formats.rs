//! What is written is read back, and every format gives the same rows whole and in chunks.

mod common;

use std::fs;
use std::path::Path;

use common::{file, gz, idx, load, load_with, npy, read_chunks};
use cvae_data::{ArrayWriter, DataError, ImageShape, LoadOptions, RowsRef, Source, Values, check_output, write_array};
use proptest::prelude::*;

/// Bits, so that -0.0 and 0.0 differ.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

proptest! {
    // Every case is flushed to the disk.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn written_arrays_are_read_back_bit_for_bit(
        width in 1usize..6,
        rows in prop::collection::vec(
            prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 5),
            1..20,
        ),
        chunk in 1usize..7,
        ending in prop::sample::select(vec!["npy", "csv"]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("a.{ending}"));
        let values: Vec<f32> = rows.iter().flat_map(|row| row[..width].to_vec()).collect();
        let mut writer = ArrayWriter::create(&path, width, "z").unwrap();
        for part in values.chunks(chunk * width) {
            writer.write(part).unwrap();
        }
        prop_assert_eq!(writer.finish().unwrap(), rows.len() as u64);
        let data = load(&path).unwrap();
        prop_assert_eq!(data.width(), width);
        prop_assert_eq!(bits(&data.to_f32()), bits(&values));
        prop_assert_eq!(bits(&read_chunks(&path, chunk).unwrap()), bits(&values));
        prop_assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn numbers_of_every_type_are_read(values in prop::collection::vec(any::<i8>(), 6), big: bool) {
        let folder = tempfile::tempdir().unwrap();
        let expected: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
        let unsigned: Vec<f32> = values.iter().map(|&v| f32::from(v as u8)).collect();
        macro_rules! check {
            ($type:ty, $code:literal, $expected:expr) => {{
                let bytes: Vec<u8> = $expected
                    .iter()
                    .flat_map(|&v| if big { (v as $type).to_be_bytes() } else { (v as $type).to_le_bytes() })
                    .collect();
                let descr = format!("{}{}", if big { '>' } else { '<' }, $code);
                let path = file(folder.path(), "a.npy", &npy(&descr, "(2, 3)", &bytes));
                let data = load(&path).unwrap();
                prop_assert_eq!(data.to_f32().to_vec(), $expected.clone(), "{}", descr);
            }};
        }
        check!(i8, "i1", expected);
        check!(i16, "i2", expected);
        check!(i32, "i4", expected);
        check!(i64, "i8", expected);
        check!(u16, "u2", unsigned);
        check!(u32, "u4", unsigned);
        check!(u64, "u8", unsigned);
        check!(f32, "f4", expected);
        check!(f64, "f8", expected);
    }
}

#[test]
fn bytes_stay_bytes_and_stand_for_the_unit_interval() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        file(folder.path(), "a.npy", &npy("|u1", "(2, 2)", &[0, 51, 255, 1])),
        file(folder.path(), "a.idx2", &idx(8, &[2, 2], &[0, 51, 255, 1])),
        file(folder.path(), "a.idx2.gz", &gz(&idx(8, &[2, 2], &[0, 51, 255, 1]))),
    ] {
        let data = load(&path).unwrap();
        let RowsRef::U8 { values, width, scale } = data.as_rows() else {
            panic!("bytes were converted");
        };
        assert_eq!((values, width), ([0, 51, 255, 1].as_slice(), 2));
        assert_eq!(data.to_f32()[..], [0.0, 51.0 * scale, 1.0, scale]);
        assert_eq!(read_chunks(&path, 1).unwrap(), data.to_f32().into_owned());
    }
}

#[test]
fn axes_beyond_rows_are_flattened_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let shape = |height, width, channels| ImageShape { height, width, channels };
    for (axes, image) in [
        ("(2, 12)", None),
        ("(2, 3, 4)", Some(shape(3, 4, 1))),
        ("(2, 2, 2, 3)", Some(shape(2, 2, 3))),
        ("(2, 3, 2, 2)", None),
        ("(2, 1, 2, 2, 3)", None),
    ] {
        let path = file(folder.path(), "a.npy", &npy("|u1", axes, &[7; 24]));
        let data = load(&path).unwrap();
        assert_eq!((data.rows(), data.width(), data.image_shape()), (2, 12, image), "{axes}");
    }
}

#[test]
fn csv_headers_labels_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let names = |data: &cvae_data::Dataset| data.feature_names().map(<[String]>::to_vec);
    let data = load(&file(folder.path(), "a.csv", "\u{feff}x,Label,y\n1,3,2\n\n4,0,5\n".as_bytes())).unwrap();
    assert_eq!(names(&data), Some(vec!["x".to_owned(), "y".to_owned()]));
    assert_eq!((data.labels(), data.class_names()), (Some([3, 0].as_slice()), None));
    assert_eq!(data.to_f32()[..], [1.0, 2.0, 4.0, 5.0]);

    let data = load(&file(folder.path(), "b.csv.gz", &gz(b"class,\"a, b\"\r\nwasp, 1\r\nbee,2e-3\r\n"))).unwrap();
    assert_eq!(names(&data), Some(vec!["a, b".to_owned()]));
    assert_eq!(data.labels(), Some([1, 0].as_slice()));
    assert_eq!(data.class_names(), Some(["bee".to_owned(), "wasp".to_owned()].as_slice()));
    assert_eq!(data.to_f32()[..], [1.0, 2e-3]);

    // A label column is found even where all other columns have numbers for names.
    let data = load(&file(folder.path(), "c.csv", b"0,1,label\n5,6,7\n")).unwrap();
    assert_eq!((data.rows(), data.labels()), (1, Some([7].as_slice())));

    let data = load(&file(folder.path(), "d.csv", b"1,2\n3,4")).unwrap();
    assert_eq!((names(&data), data.labels(), data.rows()), (None, None, 2));
}

#[test]
fn missing_values_are_kept_where_they_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions { allow_nan: true, ..LoadOptions::default() };
    let csv = file(folder.path(), "a.csv", b"a,b,c,d\n,NA,nan,1\n");
    let values = [f32::NAN, f32::NAN, f32::NAN, 1.0];
    let array = file(folder.path(), "a.npy", &npy("<f4", "(1, 4)", &common::f32_bytes(&values)));
    for path in [csv, array] {
        let data = load_with(&path, &options).unwrap();
        let missing: Vec<bool> = data.to_f32().iter().map(|x| x.is_nan()).collect();
        assert_eq!(missing, [true, true, true, false]);
    }
    for content in ["inf,1\n", "1,-infinity\n"] {
        let path = file(folder.path(), "b.csv", content.as_bytes());
        let error = load_with(&path, &options).unwrap_err();
        assert!(matches!(error, DataError::NonFinite { .. }), "{error}");
    }
}

#[test]
fn named_sets_are_found_in_every_spelling() {
    for (folder_name, images, labels) in [
        ("fashion-mnist", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        ("fashion_mnist", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        ("fashion-mnist", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("fashion-mnist", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(folder_name);
        fs::create_dir(&folder).unwrap();
        let packed = |name: &str, content: Vec<u8>| {
            let content = if name.ends_with(".gz") { gz(&content) } else { content };
            file(&folder, name, &content);
        };
        packed(images, idx(8, &[3, 28, 28], &[9; 3 * 784]));
        packed(labels, idx(8, &[3], &[0, 9, 4]));
        let options = LoadOptions {
            folders: vec![root.path().join("absent"), root.path().to_path_buf()],
            ..LoadOptions::default()
        };
        let source: Source = "fashion-mnist:test".parse().unwrap();
        let data = source.load(&options).unwrap();
        assert_eq!((data.name(), data.rows(), data.width()), ("fashion-mnist:test", 3, 784));
        assert_eq!(data.labels(), Some([0, 9, 4].as_slice()));
        assert_eq!(data.class_names().unwrap()[9], "Ankle boot");
        assert!(matches!(data.values(), Values::U8 { .. }));
    }
}

#[test]
fn parts_have_their_counterparts() {
    let parse = |text: &str| text.parse::<Source>().unwrap();
    for (text, test) in [
        ("digits", None),
        ("digits:train", Some("digits:test")),
        ("digits:test", None),
        ("fashion-mnist", Some("fashion-mnist:test")),
        ("fashion_mnist:train", Some("fashion-mnist:test")),
        ("mnist:test", None),
        ("synthetic:normal:10x2:5", None),
        ("rows.npy", None),
    ] {
        assert_eq!(parse(text).test_part(), test.map(parse), "{text}");
        assert_eq!(parse(&parse(text).to_string()), parse(text), "{text}");
    }
}

#[test]
fn every_source_gives_the_same_rows_whole_and_in_chunks() {
    for text in ["digits", "digits:test", "synthetic:normal:103x5"] {
        let source: Source = text.parse().unwrap();
        let options = LoadOptions::default();
        let data = source.load(&options).unwrap();
        let mut reader = source.open(&options).unwrap();
        assert_eq!(reader.rows(), Some(data.rows() as u64));
        let (mut all, mut chunk) = (Vec::new(), vec![1.0]);
        loop {
            let rows = reader.next_chunk(50, &mut chunk).unwrap();
            assert_eq!(chunk.len(), rows * data.width());
            if rows == 0 {
                break;
            }
            all.extend_from_slice(&chunk);
        }
        assert_eq!(bits(&all), bits(&data.to_f32()), "{text}");
        assert_eq!(reader.next_chunk(50, &mut chunk).unwrap(), 0, "the end stays the end");
    }
}

#[test]
fn unfinished_and_refused_outputs_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    fs::write(&path, b"before").unwrap();
    {
        let mut writer = ArrayWriter::create(&path, 2, "z").unwrap();
        writer.write(&[1.0; 100_000]).unwrap();
        let error = writer.write(&[1.0; 3]).unwrap_err();
        assert!(matches!(error, DataError::PartialRow { values: 3, width: 2, .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"before");
    check_output(&path).unwrap();
    for (name, width, message) in [
        ("a.txt", 2, "unknown kind of output; name it .npy, .csv or .parquet"),
        ("a", 2, "unknown kind of output; name it .npy, .csv or .parquet"),
        ("a.npy", 0, "no feature columns"),
        ("absent/a.npy", 2, "cannot be written: "),
    ] {
        let path = folder.path().join(name);
        let error = write_array(&path, width, &[], "z").unwrap_err().to_string();
        let expected = format!("{}: {message}", path.display());
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(check_output(&path).is_err(), name != "a.npy");
    }
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn written_headers_are_those_of_the_formats() {
    let folder = tempfile::tempdir().unwrap();
    let array = folder.path().join("a.npy");
    write_array(&array, 2, &[1.0, -2.5, 3.0, 4.0], "z").unwrap();
    let bytes = fs::read(&array).unwrap();
    assert_eq!(bytes.len(), 128 + 16);
    assert!(
        bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }  ")
    );
    assert_eq!((bytes[127], &bytes[128..132]), (b'\n', 1f32.to_le_bytes().as_slice()));

    let text = folder.path().join("a.csv");
    write_array(&text, 2, &[1.0, -2.5, 1e-30, 0.1], "z").unwrap();
    assert_eq!(fs::read_to_string(&text).unwrap(), "z0,z1\n1.0,-2.5\n1e-30,0.1\n");
}
