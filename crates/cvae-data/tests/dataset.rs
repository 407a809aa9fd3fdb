//! Rows in memory: what they refuse, and that every way of taking rows out agrees.

use std::ops::Range;

use cvae_data::{BYTE_SCALE, DataError, Dataset, FittedScaling, ImageShape, LoadOptions, Scaling, Source, Values};
use proptest::prelude::*;

fn bytes(rows: usize, width: usize) -> Dataset {
    let values = (0..rows * width).map(|i| (i * 37 % 256) as u8).collect();
    let scale = BYTE_SCALE;
    Dataset::new("bytes", Values::U8 { values, scale }, width).unwrap()
}

/// The same values as 32-bit floats.
fn floats(data: &Dataset) -> Dataset {
    let values = Values::F32(data.to_f32().into_owned());
    Dataset::new("floats", values, data.width()).unwrap()
}

#[test]
fn inconsistent_parts_are_refused() {
    let four = || Values::F32(vec![0.0; 4]);
    let data = || Dataset::new("four", four(), 2).unwrap();
    let names = |count| vec![String::new(); count];
    let shape = ImageShape { height: 2, width: 2, channels: 1 };
    for (result, message) in [
        (Dataset::new("four", four(), 0), "four: no feature columns"),
        (Dataset::new("none", Values::F32(vec![]), 2), "none: no rows"),
        (Dataset::new("four", four(), 3), "four: 4 values are not a whole number of rows of width 3"),
        (data().with_labels(vec![0]), "four: 1 labels for 2 rows"),
        (
            data().with_labels(vec![0, 2]).and_then(|d| d.with_class_names(names(2))),
            "four: row 1 has label 2, but there are 2 class names",
        ),
        (data().with_feature_names(names(3)), "four: rows of width 3 where 2 are needed"),
        (data().with_image_shape(shape), "four: an image of 2x2x1 has 4 values, a row has 2"),
        (data().select(&[]), "four: no rows"),
        (data().select(&[0, 2]), "four: row 2 asked for, but there are 2 rows"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    assert!(data().expect_width(2).is_ok());
    let error = data().expect_width(3).unwrap_err().to_string();
    assert_eq!(error, "four: rows of width 2 where 3 are needed");
}

#[test]
fn rows_beyond_the_end_leave_the_output_empty() {
    let data = bytes(3, 2);
    let mut out = vec![1.0];
    let error = data.gather(&[0, 3], &mut out).unwrap_err();
    assert!(matches!(error, DataError::RowOutOfRange { index: 3, rows: 3, .. }));
    assert!(out.is_empty());
    for range in [0..4, 3..5, Range { start: 9, end: 0 }] {
        out.push(1.0);
        let error = data.copy_rows(range, &mut out).unwrap_err();
        assert!(matches!(error, DataError::RowOutOfRange { rows: 3, .. }));
        assert!(out.is_empty());
    }
}

#[test]
fn selections_keep_labels_names_and_shape() {
    let source: Source = "digits".parse().unwrap();
    let data = source.load(&LoadOptions::default()).unwrap();
    assert_eq!(data.class_names().unwrap()[9], "9");
    let (train, test) = data.split(0.1, 5).unwrap();
    assert_eq!((train.rows(), test.rows()), (1617, 180));
    for side in [&train, &test] {
        assert_eq!(side.image_shape(), data.image_shape());
        assert_eq!(side.class_names(), data.class_names());
        assert_eq!(side.labels().unwrap().len(), side.rows());
    }
    let again = data.split(0.1, 5).unwrap();
    assert_eq!((&again.0, &again.1), (&train, &test));
    assert_ne!(data.split(0.1, 6).unwrap().1, test);
}

#[test]
fn scaling_fits_bytes_like_floats() {
    let data = bytes(3000, 3);
    for kind in [Scaling::None, Scaling::MinMax, Scaling::Standardize] {
        let fitted = FittedScaling::fit_dataset(kind, &data).unwrap();
        let whole = FittedScaling::fit(kind, &data.to_f32(), 3).unwrap();
        assert_eq!(fitted, whole);
        assert_eq!((fitted.kind(), fitted.width()), (kind, 3));
    }
}

proptest! {
    #[test]
    fn every_way_of_taking_rows_agrees(
        width in 1usize..5,
        indices in prop::collection::vec(0u32..9, 1..20),
        start in 0usize..9,
        length in 0usize..9,
    ) {
        let stored = bytes(9, width);
        for data in [floats(&stored), stored] {
            let all = data.to_f32().into_owned();
            let mut out = Vec::new();
            data.gather(&indices, &mut out).unwrap();
            let expected: Vec<f32> = indices
                .iter()
                .flat_map(|&i| all[i as usize * width..][..width].to_vec())
                .collect();
            prop_assert_eq!(&out, &expected);
            prop_assert_eq!(data.select(&indices).unwrap().to_f32().to_vec(), expected);
            let end = (start + length).min(9);
            data.copy_rows(start..end, &mut out).unwrap();
            prop_assert_eq!(&out[..], &all[start * width..end * width]);
        }
    }
}
