//! The tables and pictures of the documentation are what the committed records give.

use std::path::Path;

#[test]
fn the_documentation_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
    cvae_bench::report::generate(root, true).expect("`cargo xtask report` was run");
}
