//! Formats that come with cargo features: Apache Parquet and folders of images.
#![cfg(all(feature = "parquet", feature = "images"))]

mod common;

use std::fs;
use std::path::Path;

use common::{array, check_refusal, cvae, succeed};

/// Writes a grey picture of 12 × 12 pixels with a bright bar.
fn picture(path: &Path, bar: usize, vertical: bool) {
    let mut pixels = vec![20u8; 144];
    for at in 0..12 {
        let index = if vertical { at * 12 + bar } else { bar * 12 + at };
        pixels[index] = 230;
    }
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, 12, 12);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

#[test]
fn folders_of_images_are_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (class, vertical) in [("rows", false), ("columns", true)] {
        fs::create_dir_all(folder.join("pictures").join(class)).unwrap();
        for bar in 0..12 {
            picture(&folder.join(format!("pictures/{class}/{bar:02}.png")), bar, vertical);
        }
    }
    succeed(folder, "train pictures --layers 144-6 --epochs 3 --out run");
    let page = fs::read_to_string(folder.join("run/report.html")).unwrap();
    assert!(page.contains("data:image/png;base64,"), "rows are shown as images");
    let found = common::json(folder, "eval --run run --data pictures --json");
    assert!(found["ssim"].is_f64() && found["knn5"].is_f64(), "image shape and labels are known: {found}");
    succeed(folder, "reconstruct --run run --data pictures --out r.parquet");
    assert_eq!(array(&folder.join("r.parquet")).0, 24);

    fs::write(folder.join("pictures/rows/13.png"), b"no picture").unwrap();
    let line = "encode --run run --data pictures --out z.npy";
    check_refusal(line, &cvae(folder, line), &["13.png"]);
    fs::create_dir(folder.join("empty")).unwrap();
    check_refusal("train empty", &cvae(folder, "train empty"), &["empty"]);
}

#[test]
fn parquet_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train synthetic:normal:120x5 --layers 5-4-2 --epochs 3 --out run");
    for command in [
        "reconstruct --run run --data synthetic:normal:30x5",
        "encode --run run --data synthetic:normal:30x5",
        "sample --run run -n 30",
        "score --run run --data synthetic:normal:30x5 --explain 2",
    ] {
        succeed(folder, &format!("{command} --out rows.npy"));
        succeed(folder, &format!("{command} --out rows.parquet"));
        assert_eq!(array(&folder.join("rows.npy")), array(&folder.join("rows.parquet")), "{command}");
    }
    succeed(folder, "reconstruct --run run --data synthetic:normal:30x5 --out rows.parquet");
    succeed(folder, "reconstruct --run run --data synthetic:normal:30x5 --out rows.npy");
    succeed(folder, "train rows.parquet --epochs 2 --out from-parquet");
    succeed(folder, "train rows.npy --epochs 2 --out from-npy");
    let weights = |run: &str| cvae::RunFolder::new(folder.join(run)).read_model().unwrap().params;
    assert_eq!(weights("from-parquet"), weights("from-npy"));

    let bytes = fs::read(folder.join("rows.parquet")).unwrap();
    fs::write(folder.join("short.parquet"), &bytes[..bytes.len() / 2]).unwrap();
    check_refusal("train short.parquet", &cvae(folder, "train short.parquet"), &["short.parquet"]);
}
