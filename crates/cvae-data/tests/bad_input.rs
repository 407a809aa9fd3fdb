//! Every kind of bad input gives one error that names the file and what is wrong, and never a panic.

mod common;

use common::{f32_bytes, file, gz, idx, load, npy, npy_raw, read_chunks};
use cvae_data::{DataError, LoadOptions, Source};

/// One bad file: its name, its content, and the message after the path and a colon.
struct Case {
    name: &'static str,
    content: Vec<u8>,
    message: &'static str,
}

fn case(name: &'static str, content: impl Into<Vec<u8>>, message: &'static str) -> Case {
    Case { name, content: content.into(), message }
}

fn npy_cases() -> Vec<Case> {
    let six = f32_bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let with = |value: f32| npy("<f4", "(2, 3)", &f32_bytes(&[1.0, 2.0, 3.0, 4.0, value, 6.0]));
    let good = npy("<f4", "(2, 3)", &six);
    let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n";
    let mut newer = good.clone();
    newer[6] = 9;
    let mut endless = good.clone();
    endless[6] = 2;
    endless[8..12].copy_from_slice(&[0xff; 4]);
    vec![
        case("empty.npy", "", "the file is empty"),
        case(
            "magic.npy",
            "\u{89}PNG\r\n rows",
            "not an npy file: its first bytes are [c2, 89, 50, 4e, 47, 0d, 0a, 20]",
        ),
        case("short-magic.npy", "\u{1}", "not an npy file: its first bytes are [01]"),
        case("cut-version.npy", &good[..6], "bad npy header: the file ends inside it"),
        case("cut-header.npy", &good[..40], "bad npy header: the file ends inside it"),
        case("version.npy", newer, "bad npy header: its format version is unknown"),
        case("endless-header.npy", endless, "bad npy header: it is longer than 64 KiB"),
        case("syntax.npy", npy_raw("{'descr': <f4}", &six), "bad npy header: it is not well-formed"),
        case("field.npy", npy_raw("{'descr': '<f4'}", &six), "bad npy header: a required field is missing"),
        case(
            "fortran.npy",
            npy_raw(fortran, &six),
            "the array is in Fortran order; save it with numpy.ascontiguousarray",
        ),
        case(
            "cut-values.npy",
            &good[..good.len() - 1],
            "truncated: its header declares 24 bytes of values, at most 23 are there",
        ),
        case("long.npy", [good.clone(), vec![0]].concat(), "longer than its header declares (24 bytes of values)"),
        case(
            "lying-rows.npy",
            npy("<f4", "(1000000000000, 3)", &six),
            "truncated: its header declares 12000000000000 bytes of values, at most 24 are there",
        ),
        case(
            "overflow.npy",
            npy("<f4", "(4294967296, 4294967296, 4294967296)", &six),
            "bad npy header: its dimensions overflow",
        ),
        case("big-size.npy", npy("<f4", "(99999999999999999999, 3)", &six), "bad npy header: its dimensions overflow"),
        case(
            "scalar.npy",
            npy("<f4", "()", &six[..4]),
            "an array of 0 dimension(s) where rows and columns are needed; reshape it to 2-D",
        ),
        case(
            "vector.npy",
            npy("<f4", "(6,)", &six),
            "an array of 1 dimension(s) where rows and columns are needed; reshape it to 2-D",
        ),
        case("no-rows.npy", npy("<f4", "(0, 3)", &[]), "no rows"),
        case("no-columns.npy", npy("<f4", "(2, 0)", &[]), "no feature columns"),
        case(
            "half.npy",
            npy("<f2", "(2, 3)", &[0; 12]),
            "values of type `<f2` are not supported (8 to 64-bit integers and 32 or 64-bit floats are)",
        ),
        case(
            "object.npy",
            npy("|O", "(2, 3)", &six),
            "values of type `|O` are not supported (8 to 64-bit integers and 32 or 64-bit floats are)",
        ),
        case(
            "record.npy",
            npy_raw("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}", &six),
            "values of type `[('a', '<f4')]` are not supported (8 to 64-bit integers and 32 or 64-bit floats are)",
        ),
        case(
            "nan.npy",
            with(f32::NAN),
            "row 1, column 1 (counted from 0) holds NaN, which is not a finite 32-bit number",
        ),
        case(
            "infinity.npy",
            with(f32::NEG_INFINITY),
            "row 1, column 1 (counted from 0) holds -inf, which is not a finite 32-bit number",
        ),
        case(
            "range.npy",
            npy("<f8", "(1, 1)", &1e300f64.to_le_bytes()),
            "row 0, column 0 (counted from 0) holds inf, which is not a finite 32-bit number",
        ),
    ]
}

fn csv_cases() -> Vec<Case> {
    let cut = gz(b"1,2\n3,4\n");
    let mut flipped = cut.clone();
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    vec![
        case("empty.csv", "", "the file is empty"),
        case("blank.csv", "\n\n", "no rows"),
        case("header-only.csv", "a,b\n", "no rows"),
        case("label-only.csv", "label\n1\n", "no feature columns"),
        case("ragged.csv", "1,2\n3,4\n5\n", "line 3 has 1 cells where the lines before have 2"),
        case("wide.csv", "a,b\n1,2\n3,4,5\n", "line 3 has 3 cells where the lines before have 2"),
        case("ragged-start.csv", "a,b\n1,2,3\n", "line 2 has 3 cells where the lines before have 2"),
        case("text.csv", "1,2\n3,four\n", "line 2, column 2 holds `four`, which is not a number"),
        case("text-after-blank.csv", "1,2\n\n3,four\n", "line 3, column 2 holds `four`, which is not a number"),
        case("open-quote.csv", "1,2\n\"3,4\n5,6\n", "line 2 has 1 cells where the lines before have 2"),
        case("text-in-first-line.csv", "1,two\n3,4\n", "line 1, column 2 holds `two`, which is not a number"),
        case(
            "long-text.csv",
            format!("1\n{}\n", "x".repeat(50)),
            "line 2, column 1 holds `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…`, which is not a number",
        ),
        case("binary.csv", b"1,2\n\xff\x00,4\n", "line 2, column 1 holds `\u{fffd}\\0`, which is not a number"),
        case("missing.csv", "a,b\n1,\n", "line 2, column 2 is empty"),
        case("nan.csv", "a,b\n1,2\nnan,4\n", "line 3, column 1 holds NaN, which is not a finite 32-bit number"),
        case("infinity.csv", "1,2\n3,-inf\n", "line 2, column 2 holds -inf, which is not a finite 32-bit number"),
        case("range.csv", "1,1e39\n", "line 1, column 2 holds inf, which is not a finite 32-bit number"),
        case(
            "label-fraction.csv",
            "a,target\n1,2.5\n",
            "line 2, column 2 holds the label `2.5`; labels are whole numbers or names",
        ),
        case(
            "label-missing.csv",
            "a,label\n1,\n",
            "line 2, column 2 holds the label ``; labels are whole numbers or names",
        ),
        case(
            "two-labels.csv",
            "label,a,Class\n1,2,3\n",
            "both `label` and `Class` look like the label column; keep one",
        ),
        case(
            "row-index.csv",
            ",a,b\n0,1,2\n",
            "column 1 has no name in the header; name it, or remove it if it is a row index",
        ),
        case("plain.csv.gz", "1,2\n", "not a gzip file: its first bytes are [31, 2c, 32, 0a]"),
        case("cut.csv.gz", &cut[..cut.len() - 9], "the gzip data is damaged or cut short: "),
        case("flipped.csv.gz", flipped, "the gzip data is damaged or cut short: "),
        case("trailing.csv.gz", [cut, b"rest".to_vec()].concat(), "the gzip data is damaged or cut short: "),
    ]
}

fn idx_cases() -> Vec<Case> {
    let good = idx(8, &[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7]);
    let bomb = gz(&idx(8, &[4_000_000_000, 4_000_000_000], &[]));
    let mut nan = 1f32.to_be_bytes().to_vec();
    nan.extend(f32::NAN.to_be_bytes());
    vec![
        case("empty-ubyte", "", "the file is empty"),
        case("magic-ubyte", "text", "not an idx file: its first bytes are [74, 65, 78, 74]"),
        case("short-magic-ubyte", [0, 0], "not an idx file: its first bytes are [00, 00]"),
        case("type.idx", [0, 0, 0x0a, 1], "not an idx file: its first bytes are [00, 00, 0a, 01]"),
        case("cut-header.idx3", &good[..10], "bad idx header: the file ends inside it"),
        case("cut-values.idx3", &good[..20], "truncated: its header declares 8 bytes of values, at most 4 are there"),
        case("long.idx3", [good.clone(), vec![0]].concat(), "longer than its header declares (8 bytes of values)"),
        case(
            "labels.idx1",
            idx(8, &[3], &[1, 2, 3]),
            "an array of 1 dimension(s) where rows and columns are needed; reshape it to 2-D",
        ),
        case("no-rows.idx3", idx(8, &[0, 2, 2], &[]), "no rows"),
        case("no-columns.idx3", idx(8, &[2, 0, 2], &[]), "no feature columns"),
        case("overflow.idx5", idx(8, &[u32::MAX; 5], &[]), "bad idx header: its dimensions overflow"),
        case(
            "nan.idx2",
            idx(0x0d, &[1, 2], &nan),
            "row 0, column 1 (counted from 0) holds NaN, which is not a finite 32-bit number",
        ),
        case("plain.idx3.gz", good.clone(), "not a gzip file: its first bytes are [00, 00, 08, 03, 00, 00, 00, 02]"),
        case("cut.idx3.gz", gz(&good[..20]), "truncated: its header declares 8 bytes of values, at most 4 are there"),
        case(
            "long.idx3.gz",
            gz(&[good.clone(), vec![0]].concat()),
            "longer than its header declares (8 bytes of values)",
        ),
        case("bomb.idx2.gz", bomb, "truncated: its header declares 16000000000000000000 bytes of values, at most "),
        case("damaged.idx3.gz", &gz(&good)[..20], "the gzip data is damaged or cut short: "),
    ]
}

#[test]
fn every_bad_file_is_named_with_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    for case in npy_cases().into_iter().chain(csv_cases()).chain(idx_cases()) {
        let path = file(folder.path(), case.name, &case.content);
        let expected = format!("{}: {}", path.display(), case.message);
        // Whole and in chunks, the message is the same.
        for result in [load(&path).map(|_| ()), read_chunks(&path, 1).map(|_| ())] {
            let message = result.expect_err(case.name).to_string();
            let matches = if expected.ends_with(' ') { message.starts_with(&expected) } else { message == expected };
            assert!(matches, "\n{message}\ninstead of\n{expected}");
            assert!(!message.contains('\n'), "one line: {message}");
        }
    }
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let images = idx(8, &[2, 1, 1], &[1, 2]);
    for (labels, message) in [
        (idx(8, &[3], &[1, 2, 3]), "3 labels for 2 rows"),
        (idx(8, &[2, 1], &[1, 2]), "labels with 2 axes where one is needed"),
        (idx(8, &[2], &[1]), "truncated: its header declares 2 bytes of values, at most 1 are there"),
        (idx(0x0d, &[2], &[0; 8]), "values of type `labels that are not bytes` are not supported"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "a-images-idx3-ubyte", &images);
        file(folder.path(), "a-labels-idx1-ubyte", &labels);
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn names_and_places_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = LoadOptions { folders: vec![folder.path().to_path_buf()], ..LoadOptions::default() };
    let at = |name: &str| folder.path().join(name).display().to_string();
    let unknown = file(folder.path(), "rows.xlsx", b"x").display().to_string();
    let directory = folder.path().join("folder.npy");
    std::fs::create_dir(&directory).unwrap();
    for (text, message) in [
        (at("absent.npy"), format!("{}: no such file or folder", at("absent.npy"))),
        (at("absent.csv.gz"), format!("{}: no such file or folder", at("absent.csv.gz"))),
        (at("absent"), format!("{}: no such file or folder", at("absent"))),
        (unknown.clone(), format!("{unknown}: unknown kind of file; known are .npy, .csv")),
        (directory.display().to_string(), format!("{}: cannot be read: ", directory.display())),
        ("".to_owned(), "unknown data source ``".to_owned()),
        ("digit".to_owned(), "unknown data source `digit`; did you mean `digits`?".to_owned()),
        ("Fashion-MNIST".to_owned(), "unknown data source `Fashion-MNIST`; did you mean `fashion-mnist`?".to_owned()),
        ("minst:test".to_owned(), "unknown data source `minst:test`; did you mean `mnist`?".to_owned()),
        ("cifar10".to_owned(), "unknown data source `cifar10`".to_owned()),
        ("digits:validation".to_owned(), "`digits:validation`: unknown part `validation`; parts are `train` and `test`".to_owned()),
        ("synthetic".to_owned(), "`synthetic`: a synthetic source is written `synthetic:normal:ROWSxWIDTH`".to_owned()),
        ("synthetic:uniform:3x4".to_owned(), "`synthetic:uniform:3x4`: a synthetic source is written".to_owned()),
        ("synthetic:normal:3x-4".to_owned(), "`synthetic:normal:3x-4`: a synthetic source is written".to_owned()),
        ("synthetic:normal:3x4:5:6".to_owned(), "`synthetic:normal:3x4:5:6`: a synthetic source is written".to_owned()),
        ("synthetic:normal:0x4".to_owned(), "synthetic:normal:0x4: no rows".to_owned()),
        ("synthetic:normal:3x0".to_owned(), "synthetic:normal:3x0: no feature columns".to_owned()),
        ("synthetic:normal:4000000000x4000000000".to_owned(), "synthetic:normal:4000000000x4000000000: 18446744073709551615 bytes of values in 4000000000 rows are more than".to_owned()),
        ("fashion-mnist:test".to_owned(), format!("fashion-mnist:test: no data files; looked in {}, {}; install Debian's package `dataset-fashion-mnist`", at("fashion-mnist"), at("fashion_mnist"))),
        ("mnist".to_owned(), format!("mnist:train: no data files; looked in {}; put the four files", at("mnist"))),
    ] {
        let result = text.parse::<Source>().and_then(|source| source.load(&nothing));
        let error = result.expect_err(&text).to_string();
        assert!(error.starts_with(&message), "\n{error}\ninstead of\n{message}");
    }
}

#[test]
fn size_limits_hold_with_and_without_a_header() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions { max_bytes: 16, ..LoadOptions::default() };
    let wide = f32_bytes(&[0.0; 5]);
    for (name, content) in [
        ("a.npy", npy("<f4", "(5, 1)", &wide)),
        ("a.csv", b"0\n0\n0\n0\n0\n".to_vec()),
        ("a.csv.gz", gz(b"0\n0\n0\n0\n0\n")),
    ] {
        let path = file(folder.path(), name, &content);
        let error = common::load_with(&path, &options).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { rows: 5, bytes: 20, limit: 16, .. }), "{error}");
        assert_eq!(read_chunks(&path, 2).unwrap(), [0.0; 5], "chunks are not limited");
    }
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let bomb = gz(&vec![b'0'; 80 << 20]);
    assert!(bomb.len() < 100_000);
    let path = file(folder.path(), "a.csv.gz", &bomb);
    let error = load(&path).unwrap_err();
    assert!(matches!(error, DataError::LineTooLong { line: 1, .. }), "{error}");
}

#[test]
fn chunks_of_no_rows_are_refused() {
    let source: Source = "digits".parse().unwrap();
    let mut reader = source.open(&LoadOptions::default()).unwrap();
    let error = reader.next_chunk(0, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, DataError::EmptyChunk));
}

#[test]
fn formats_left_out_of_this_build_name_their_feature() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    for (text, feature, built_in) in [
        ("rows.parquet", "parquet", cfg!(feature = "parquet")),
        (directory.as_str(), "images", cfg!(feature = "images")),
    ] {
        let source: Source = text.parse().unwrap();
        let error = source.load(&LoadOptions::default()).unwrap_err().to_string();
        let expected = format!("{text}: this build cannot handle it: rebuild with the cargo feature `{feature}`");
        assert_eq!(error == expected, !built_in, "{error}");
    }
}
