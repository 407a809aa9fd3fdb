//! Published figures of Fashion-MNIST. The data are looked for in `$CVAE_DATA` and in
//! `/usr/share/datasets`; without them the test says that it was skipped.

use std::io::Read;
use std::path::{Path, PathBuf};

use cvae::Matrix;
use cvae::metrics::{Pca, knn_accuracy};

const WIDTH: usize = 28 * 28;

/// The bytes after an IDX header of `header` bytes.
fn read(folder: &Path, name: &str, header: usize) -> Vec<u8> {
    let file = std::fs::File::open(folder.join(name)).expect("the file is readable");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("the file is gzip");
    bytes.split_off(header)
}

fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("CVAE_DATA").map(PathBuf::from);
    given
        .into_iter()
        .chain([PathBuf::from("/usr/share/datasets")])
        .map(|root| root.join("fashion-mnist"))
        .find(|folder| folder.join("train-images-idx3-ubyte.gz").is_file())
}

#[test]
fn pca_floors_and_neighbours_of_pca_codes() {
    let Some(folder) = folder() else {
        eprintln!("skipped: no fashion-mnist/train-images-idx3-ubyte.gz in $CVAE_DATA or /usr/share/datasets");
        return;
    };
    let images = |name: &str| -> Vec<f32> {
        read(&folder, name, 16).into_iter().map(|pixel| f32::from(pixel) / 255.0).collect()
    };
    let labels = |name: &str| -> Vec<u32> { read(&folder, name, 8).into_iter().map(u32::from).collect() };
    let (train, test) = (images("train-images-idx3-ubyte.gz"), images("t10k-images-idx3-ubyte.gz"));
    let train = Matrix::new(&train, WIDTH).unwrap();
    let test = Matrix::new(&test, WIDTH).unwrap();
    assert_eq!((train.rows(), test.rows()), (60_000, 10_000));

    let pca = Pca::fit(train, 128).unwrap();
    let floors =
        [(2, 0.04610), (8, 0.02661), (10, 0.02435), (16, 0.02045), (32, 0.01514), (64, 0.01037), (128, 0.00631)];
    for (components, floor) in floors {
        let found = pca.truncated(components).unwrap().mse(test).unwrap();
        assert!((found - floor).abs() < 0.5e-5, "{components} components: {found}");
    }

    let (train_labels, test_labels) = (labels("train-labels-idx1-ubyte.gz"), labels("t10k-labels-idx1-ubyte.gz"));
    let pca = pca.truncated(10).unwrap();
    let (train, test) = (pca.transform(train).unwrap(), pca.transform(test).unwrap());
    let accuracy =
        knn_accuracy(Matrix::new(&train, 10).unwrap(), &train_labels, Matrix::new(&test, 10).unwrap(), &test_labels, 5)
            .unwrap();
    assert!((accuracy - 0.806).abs() < 1e-3, "{accuracy}");
}
