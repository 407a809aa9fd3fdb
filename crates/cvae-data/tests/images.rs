//! Folders of images.

mod common;

use std::fs;
use std::path::Path;

use common::{file, load, read_chunks};
use cvae_data::{ImageShape, RowsRef};
use image::{GrayImage, Luma, Rgb, RgbImage};

fn grey(path: &Path, width: u32, height: u32, value: u8) {
    GrayImage::from_pixel(width, height, Luma([value])).save(path).unwrap();
}

#[test]
fn sub_folders_are_classes_and_paths_give_the_order() {
    let folder = tempfile::tempdir().unwrap();
    for class in ["wasp", "bee/deep", "empty"] {
        fs::create_dir_all(folder.path().join(class)).unwrap();
    }
    grey(&folder.path().join("wasp/1.png"), 3, 2, 30);
    grey(&folder.path().join("bee/2.PNG"), 3, 2, 20);
    grey(&folder.path().join("bee/deep/1.png"), 3, 2, 10);
    file(folder.path(), "README.md", b"not an image");
    let data = load(folder.path()).unwrap();
    let shape = ImageShape { height: 2, width: 3, channels: 1 };
    assert_eq!(data.image_shape(), Some(shape));
    let RowsRef::U8 { values, .. } = data.as_rows() else {
        panic!("bytes were converted");
    };
    assert_eq!(values, [[20; 6], [10; 6], [30; 6]].concat());
    assert_eq!(data.labels(), Some([0, 0, 1].as_slice()));
    assert_eq!(data.class_names().unwrap(), ["bee", "wasp"]);
    assert_eq!(read_chunks(folder.path(), 2).unwrap(), data.to_f32().into_owned());

    // An image outside of every sub-folder has no class, so there are no labels.
    grey(&folder.path().join("0.png"), 3, 2, 0);
    assert_eq!(load(folder.path()).unwrap().labels(), None);
}

#[test]
fn colour_keeps_its_channels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jpg");
    RgbImage::from_pixel(8, 8, Rgb([200, 100, 50])).save(&path).unwrap();
    let data = load(folder.path()).unwrap();
    assert_eq!((data.rows(), data.width()), (1, 8 * 8 * 3));
    let pixel = &data.to_f32()[..3];
    // JPEG is lossy, but not by more than this on a plain area.
    for (value, expected) in pixel.iter().zip([200.0, 100.0, 50.0]) {
        assert!((value * 255.0 - expected).abs() < 4.0, "{pixel:?}");
    }
}

#[test]
fn bad_folders_are_named_with_their_fault() {
    let folder = tempfile::tempdir().unwrap();
    let message =
        |path: &Path| load(folder.path()).unwrap_err().to_string().replace(&path.display().to_string(), "PATH");
    assert_eq!(message(folder.path()), "PATH: no PNG or JPEG images in this folder or its sub-folders");
    grey(&folder.path().join("a.png"), 3, 2, 0);
    let other = folder.path().join("b.png");
    grey(&other, 2, 3, 0);
    assert_eq!(message(&other), "PATH: an image of 3x2x1 where the others are 2x3x1");
    for content in [b"".as_slice(), b"not an image", b"\x89PNG\r\n\x1a\n cut"] {
        let path = file(folder.path(), "b.png", content);
        let text = message(&path);
        assert!(text.starts_with("PATH: not a usable image file: "), "{text}");
    }
    let good = fs::read(folder.path().join("a.png")).unwrap();
    let cut = file(folder.path(), "b.png", &good[..good.len() / 2]);
    let text = message(&cut);
    assert!(text.starts_with("PATH: not a usable image file: "), "{text}");
}
