//! The committed image of the kernels was made from the sources as they are.

use std::path::Path;

use sha2::{Digest, Sha256};

/// `cargo xtask kernels` records the digest of the sources beside the image; `--check` compiles and compares.
#[test]
fn the_image_was_made_from_these_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(root.join("kernels")).expect("the kernels' folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut hash = Sha256::new();
    for path in &paths {
        hash.update(path.file_name().expect("a file name").as_encoded_bytes());
        hash.update(std::fs::read(path).expect("a source"));
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let recorded = std::fs::read_to_string(root.join("kernels.sha256")).expect("the recorded digest");
    assert_eq!(recorded.trim(), digest, "run `cargo xtask kernels` and commit the image");
}
