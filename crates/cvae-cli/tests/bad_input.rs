//! Bad input: one clear sentence, exit code 1, nothing left behind.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{check_refusal, command, cvae, listing, refusal_fault, succeed};

/// A valid array of `rows × width` values.
fn npy(rows: usize, width: usize, value: impl Fn(usize) -> f32) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    header.push_str(&" ".repeat(117 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..rows * width).flat_map(|index| value(index).to_le_bytes()));
    bytes
}

/// Good and bad files in `folder`, and a trained model in `folder/run`.
fn prepare(folder: &Path) {
    let good = npy(20, 6, |index| (index % 13) as f32 / 13.0);
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write("good.npy", &good);
    write("empty.npy", b"");
    write("short.npy", &good[..good.len() - 7]);
    write("header.npy", &good[..40]);
    write("magic.npy", &[b"NOTNUMPY", &good[8..]].concat());
    write("long.npy", &[&good[..], &[0; 9]].concat());
    write("none.npy", &npy(0, 6, |_| 0.0));
    write("wide.npy", &npy(20, 7, |_| 0.5));
    write("codes.npy", &npy(20, 3, |_| 0.5));
    write("nan.npy", &npy(20, 6, |index| if index == 27 { f32::NAN } else { 0.5 }));
    write("inf.npy", &npy(20, 6, |index| if index == 119 { f32::INFINITY } else { 0.5 }));
    write("empty.csv", b"");
    write("header.csv", b"a,b,c\n");
    write("text.csv", b"1,2,3,4,5,6\n1,2,three,4,5,6\n");
    write("ragged.csv", b"1,2,3,4,5,6\n1,2,3\n");
    write("nan.csv", b"1,2,3,4,5,6\n1,2,nan,4,5,6\n");
    write("inf.csv", b"1,2,3,4,5,6\n1,2,inf,4,5,6\n");
    write("bad.csv.gz", b"this is no gzip file");
    write("bad.idx3-ubyte", b"\x00\x00\x09\x03\x00\x00");
    write("magic-images-idx3-ubyte", b"\x01\x02\x03\x04\x00\x00\x00\x01");
    write("unknown.xyz", b"1");
    write("bad.toml", b"epochs = \"many\"");
    write("unknown.toml", b"epoch = 3");
    write("binary.toml", &[0xff, 0xfe, 0x00]);
    succeed(folder, "train good.npy --layers 6-5-2 --epochs 2 --test good.npy --out run");
    succeed(folder, "train good.npy --layers 6-4-2 --epochs 2 --test good.npy --out other");
    spoiled_runs(folder);
}

/// Copies of the run, each with one thing wrong.
fn spoiled_runs(folder: &Path) {
    let spoil = |name: &str, file: &str, change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
        let copy = folder.join(name);
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(folder.join("run")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        match change(fs::read(copy.join(file)).unwrap()) {
            Some(bytes) => fs::write(copy.join(file), bytes).unwrap(),
            None => fs::remove_file(copy.join(file)).unwrap(),
        }
    };
    let model = "model.safetensors";
    let edit = |edit: fn(&mut Vec<u8>)| {
        move |mut bytes: Vec<u8>| {
            edit(&mut bytes);
            Some(bytes)
        }
    };
    spoil("flipped", model, &edit(|bytes| *bytes.last_mut().unwrap() ^= 1));
    spoil("header", model, &edit(|bytes| bytes[30] ^= 0x20));
    spoil("short", model, &edit(|bytes| bytes.truncate(bytes.len() - 5)));
    spoil("long", model, &edit(|bytes| bytes.extend([0; 16])));
    spoil("lying", model, &edit(|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes())));
    spoil("empty", model, &edit(Vec::clear));
    spoil("text", model, &edit(|bytes| *bytes = b"not a safetensors file at all, but long enough".to_vec()));
    spoil(
        "nan",
        model,
        &edit(|bytes| {
            let start = bytes.len() - 4;
            bytes[start..].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
    );
    spoil("missing", model, &|_| None);
    spoil("shapes", model, &|_| Some(fs::read(folder.join("other").join(model)).unwrap()));
    spoil("noconfig", "config.toml", &|_| None);
    spoil("badconfig", "config.toml", &|_| Some(b"seed = [".to_vec()));
    spoil(
        "state",
        "state.safetensors",
        &edit(|bytes| {
            let middle = bytes.len() - 40;
            bytes[middle] ^= 4;
        }),
    );
}

/// Command lines and the parts that the one sentence must hold.
const REFUSALS: &[(&str, &[&str])] = &[
    // Training data.
    ("train missing.npy", &["missing.npy"]),
    ("train empty.npy", &["empty.npy"]),
    ("train short.npy", &["short.npy"]),
    ("train header.npy", &["header.npy"]),
    ("train magic.npy", &["magic.npy"]),
    ("train long.npy", &["long.npy"]),
    ("train none.npy", &["none.npy", "row"]),
    ("train nan.npy", &["nan.npy", "row 4", "column 3"]),
    ("train inf.npy", &["inf.npy", "row 19", "column 5"]),
    ("train empty.csv", &["empty.csv"]),
    ("train header.csv", &["header.csv"]),
    ("train text.csv", &["text.csv", "line 2", "three"]),
    ("train ragged.csv", &["ragged.csv", "line 2"]),
    ("train nan.csv", &["nan.csv", "line 2"]),
    ("train inf.csv", &["inf.csv", "line 2"]),
    ("train bad.csv.gz", &["bad.csv.gz"]),
    ("train bad.idx3-ubyte", &["bad.idx3-ubyte"]),
    ("train magic-images-idx3-ubyte", &["magic-images-idx3-ubyte"]),
    ("train unknown.xyz", &["unknown.xyz"]),
    ("train digist", &["digist", "did you mean `digits`"]),
    ("train digits:both", &["digits:both"]),
    ("train synthetic:normal:0x5", &["synthetic:normal:0x5", "row"]),
    ("train synthetic:normal:5x0", &["synthetic:normal:5x0"]),
    ("train synthetic:uniform:5x5", &["synthetic:uniform:5x5"]),
    ("train good.npy --layers 7-3", &["good.npy", "6", "7"]),
    ("train good.npy --test wide.npy", &["wide.npy", "6", "7"]),
    ("train good.npy --test missing.csv", &["missing.csv"]),
    // Names and numbers.
    ("train --layers 64-0", &["width 0", "encoder"]),
    ("train --layers 64-0-8", &["width 0", "encoder"]),
    ("train --layers 0-8", &["width 0", "encoder"]),
    ("train --layers 64", &["encoder", "two widths"]),
    ("train --layers 64-8 --decoder 8-0-64", &["width 0", "decoder"]),
    ("train --layers 64-8 --decoder 9-64", &["decoder", "9", "8"]),
    ("train --layers 64-8 --decoder 8-65", &["decoder", "65", "64"]),
    ("train --layers 64-4000000000-8", &["parameters"]),
    ("train --activation rleu", &["unknown activation `rleu`", "relu"]),
    ("train --output softmax", &["unknown activation `softmax`"]),
    ("train --objective gan", &["unknown objective `gan`", "collapsed"]),
    ("train --reconstruction rmse", &["unknown reconstruction `rmse`"]),
    ("train --scaling max", &["unknown scaling `max`"]),
    ("train --preset default", &["unknown preset `default`", "reference"]),
    ("train --backend tpu", &["unknown backend `tpu`", "cpu"]),
    ("train --precision f16", &["unknown precision `f16`", "f32"]),
    ("train --threads 0", &["thread"]),
    ("train --epochs 0", &["`epochs`"]),
    ("train --batch-size 0", &["`batch_size`"]),
    ("train --lr -1", &["`learning_rate`"]),
    ("train --lr inf", &["`learning_rate`"]),
    ("train --beta nan", &["`beta`"]),
    ("train --decoder-l2 -0.1", &["`decoder_l2`"]),
    ("train --validation 1", &["`data.validation_fraction`"]),
    ("train --patience 3", &["`patience`"]),
    ("train --checkpoint-every -1", &["--checkpoint-every"]),
    ("train --seed 18446744073709551615", &["`seed`"]),
    ("train --objective ae --beta 1", &["--beta"]),
    ("train good.npy --reconstruction bce", &["bce", "sigmoid"]),
    ("train synthetic:normal:9x6 --output sigmoid --reconstruction bce", &["synthetic:normal:9x6", "row 0"]),
    // Configurations.
    ("train --config missing.toml", &["missing.toml"]),
    ("train --config bad.toml", &["bad.toml", "line 1"]),
    ("train --config unknown.toml", &["unknown.toml"]),
    ("train --config binary.toml", &["binary.toml"]),
    // Run folders to write.
    ("train --out good.npy", &["good.npy"]),
    ("train --out good.npy/run", &["good.npy/run"]),
    ("train --out run", &["run", "not empty"]),
    ("train --out short --resume --config bad.toml", &["bad.toml"]),
    ("train --out state --resume", &["state/state.safetensors"]),
    ("train --out badconfig --resume", &["badconfig/config.toml", "line 1"]),
    ("train --out run --resume --seed 9", &["`seed` differs"]),
    ("train --config run/config.toml --out run --resume --batch-size 7", &["`batch_size` differs"]),
    // Run folders to read.
    ("info --run nowhere", &["nowhere"]),
    ("info --run good.npy", &["good.npy"]),
    ("encode --run nowhere --data good.npy --out z.npy", &["nowhere"]),
    ("encode --run flipped --data good.npy --out z.npy", &["flipped/model.safetensors", "checksum"]),
    ("encode --run header --data good.npy --out z.npy", &["header/model.safetensors"]),
    ("encode --run short --data good.npy --out z.npy", &["short/model.safetensors", "truncated"]),
    ("encode --run long --data good.npy --out z.npy", &["long/model.safetensors"]),
    ("encode --run lying --data good.npy --out z.npy", &["lying/model.safetensors", "claims"]),
    ("encode --run empty --data good.npy --out z.npy", &["empty/model.safetensors"]),
    ("encode --run text --data good.npy --out z.npy", &["text/model.safetensors"]),
    ("encode --run nan --data good.npy --out z.npy", &["nan/model.safetensors"]),
    ("encode --run missing --data good.npy --out z.npy", &["missing/model.safetensors"]),
    ("encode --run shapes --data good.npy --out z.npy", &["shapes/config.toml", "`model` differs"]),
    ("encode --run noconfig --data good.npy --out z.npy", &["noconfig", "config.toml"]),
    ("encode --run badconfig --data good.npy --out z.npy", &["badconfig/config.toml", "line 1"]),
    ("sample --run state -n 5 --density gaussian --out z.npy", &["state/state.safetensors"]),
    ("info --run flipped", &["flipped/model.safetensors"]),
    ("eval --run lying", &["lying/model.safetensors"]),
    // Rows for a model.
    ("encode --run run --data missing.npy --out z.npy", &["missing.npy"]),
    ("encode --run run --data wide.npy --out z.npy", &["wide.npy", "7", "6"]),
    ("encode --run run --data nan.npy --out z.npy", &["nan.npy", "row 4", "column 3"]),
    ("encode --run run --data short.npy --out z.npy", &["short.npy"]),
    ("encode --run run --data none.npy --out z.npy", &["none.npy", "row"]),
    ("reconstruct --run run --data inf.npy --out z.npy", &["inf.npy", "row 19"]),
    ("reconstruct --run run --data text.csv --out z.npy", &["text.csv", "line 2"]),
    ("score --run run --data wide.npy --out z.npy", &["wide.npy", "7", "6"]),
    ("score --run run --data digits --out z.npy", &["digits", "64", "6"]),
    ("decode --run run --latents codes.npy --out z.npy", &["codes.npy", "3", "2"]),
    ("decode --run run --latents missing.npy --out z.npy", &["missing.npy"]),
    ("eval --run run --data wide.npy", &["wide.npy", "7", "6"]),
    ("eval --run run --data nan.npy", &["nan.npy", "row 4"]),
    // Objectives.
    ("train --objective vae --nats 3", &["--nats", "capacity"]),
    ("train --objective ae --penalty 3", &["--penalty", "rae-gp"]),
    ("train --objective rae-gp --penalty -3", &["`weight`", "-3"]),
    ("train --objective top-k --top-k 0", &["top", "0"]),
    ("train --corruption blur:1", &["unknown corruption `blur:1`", "masking:SHARE"]),
    ("train --corruption masking:1", &["`share`", "1"]),
    ("train --corruption gaussian:x", &["unknown corruption `gaussian:x`"]),
    ("train good.npy --corruption masked:0.5:4", &["images"]),
    ("train --linear-layers 99", &["99", "64"]),
    // Generating and judging.
    ("sample --run run -n 5 --temperature -1 --out z.npy", &["temperature", "-1"]),
    ("sample --run run -n 5 --temperature nan --out z.npy", &["temperature", "NaN"]),
    ("sample --run run -n 5 --density gmm --out z.npy", &["unknown density `gmm`", "gmm:K"]),
    ("interpolate --run run --from 20 --to 0 --out z.npy", &["good.npy", "no row 20", "20 rows"]),
    ("interpolate --run run --from 0 --to 99 --out z.npy", &["good.npy", "no row 99"]),
    ("interpolate --run run --from 0 --to 1 --steps 1 --out z.npy", &["--steps"]),
    ("interpolate --run run --from 0 --to 1 --steps 99999999999 --out z.npy", &["--steps"]),
    ("interpolate --run run --data wide.npy --from 0 --to 1 --out z.npy", &["wide.npy", "7", "6"]),
    ("interpolate --run nowhere --from 0 --to 1 --out z.npy", &["nowhere"]),
    ("interpolate --run run --from 0 --to 1 --out z.txt", &["z.txt"]),
    ("score --run run --data good.npy --terms magic --out z.npy", &["unknown term `magic`", "density"]),
    ("score --run run --data good.npy --terms neighbors --neighbors 0 --out z.npy", &["0 neighbours were asked for"]),
    ("score --run run --data good.npy --terms density,density --out z.npy", &["`density`", "twice"]),
    ("score --run run --data good.npy --terms density --density kde --out z.npy", &["unknown density `kde`"]),
    ("score --run run --data good.npy --threshold-fpr 0 --out z.npy", &["--threshold-fpr", "0"]),
    ("score --run run --data good.npy --threshold-fpr 1.5 --out z.npy", &["--threshold-fpr", "1.5"]),
    ("score --run run --data good.npy --threshold-fpr 0.001 --out z.npy", &["20 held-out", "999"]),
    ("score --run run --data good.npy --threshold-fpr 0.1 --held-out wide.npy --out z.npy", &["wide.npy", "7"]),
    ("score --run run --data good.npy --explain 0 --out z.npy", &["--explain", "0"]),
    ("score --run run --data good.npy --explain 7 --out z.npy", &["--explain", "7"]),
    ("score --run run --data good.npy --terms mahalanobis --explain 2 --out z.npy", &["compares reconstructions"]),
    ("compare run nowhere", &["nowhere"]),
    ("compare flipped", &["flipped/model.safetensors", "checksum"]),
    ("distance --reference digits:train digits:test", &["digits", "784", "64"]),
    ("distance --reference digits:train wide.npy --features raw", &["wide.npy", "7", "64"]),
    ("distance --reference digits digits --features pixels", &["unknown features `pixels`", "classifier"]),
    ("distance --reference missing.npy good.npy --features raw", &["missing.npy"]),
    // Outputs.
    ("encode --run run --data good.npy --out nowhere/z.npy", &["nowhere/z.npy"]),
    ("encode --run run --data good.npy --out run", &["run"]),
    ("encode --run run --data good.npy --out z.txt", &["z.txt"]),
    ("encode --run run --data good.npy --out z", &["z"]),
    ("encode --run run --data good.npy --out good.npy/z.npy", &["good.npy/z.npy"]),
    ("encode --run run --data good.npy --out /dev/full", &["/dev/full"]),
    ("sample --run run -n 0 --out z.npy", &["rows"]),
    ("sample --run run -n 4294967296 --out z.npy", &["rows"]),
    ("sample --run run -n 5 --density kde --out z.npy", &["unknown density `kde`"]),
    ("sample --run run -n 5 --density gmm:0 --out z.npy", &["unknown density `gmm:0`"]),
    ("sample --run run -n 5 --density gmm:999 --out z.npy", &["999"]),
    ("sample --run run -n 5 --out nowhere/z.npy", &["nowhere/z.npy"]),
    // Backends.
    ("encode --run run --data good.npy --out z.npy --backend tpu", &["unknown backend `tpu`"]),
    ("train --precision bf16 --backend cpu-scalar", &["cpu-scalar", "bf16"]),
];

#[test]
fn bad_input_gives_one_sentence_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    let before = listing(folder);
    let mut failures = Vec::new();
    for (line, parts) in REFUSALS {
        failures.extend(refusal_fault(line, &cvae(folder, line), parts));
        if listing(folder) != before {
            failures.push(format!("cvae {line} left something behind"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(!folder.join("runs").exists() || fs::read_dir(folder.join("runs")).unwrap().count() == 0);
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "",
        "trian",
        "train --epoch 3",
        "train --epochs many",
        "train --epochs -1",
        "train --layers 64-x",
        "train --preset reference --config a.toml",
        "train --resume",
        "train --out a --resume --force",
        "encode --run a",
        "sample --run a --out s.npy",
        "sample --run a -n x --out s.npy",
        "interpolate --run a --from -1 --to 2 --out s.npy",
        "compare",
        "distance a.npy",
        "distance --reference a.npy",
    ] {
        let finished = cvae(folder.path(), line);
        assert_eq!(finished.code, Some(2), "cvae {line}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty() && !finished.stderr.contains("panicked"), "{}", finished.stderr);
        assert_eq!(finished.stdout, "", "cvae {line}");
    }
}

#[test]
fn a_full_standard_output_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(folder.path(), "backends --json").stdout(full).output().unwrap();
    check_refusal("backends --json", &output.into(), &["standard output"]);
}

/// Output beyond the limit on the size of a file fails as on a full disk, in the middle of writing.
#[test]
fn an_output_that_cannot_be_completed_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train synthetic:normal:40x64 --layers 64-2 --epochs 1 --out run");
    let before = listing(folder);
    for line in [
        "reconstruct --run run --data synthetic:normal:3000x64 --out r.npy",
        "reconstruct --run run --data synthetic:normal:3000x64 --out r.csv",
        "sample --run run -n 3000 --density gaussian --out r.npy",
    ] {
        // 128 blocks of 1024 bytes; the signal that would end the program is ignored, so that writing fails.
        let shell = "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\"";
        let output = Command::new("bash")
            .args(["-c", shell, env!("CARGO_BIN_EXE_cvae")])
            .args(line.split_whitespace())
            .current_dir(folder)
            .process_group(0)
            .output()
            .unwrap();
        check_refusal(line, &output.into(), &["r."]);
        assert_eq!(listing(folder), before, "cvae {line}");
    }
}

/// The same on a real file system without room, where the test may mount one.
#[test]
fn a_full_disk_is_a_failure_and_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96k", "tmpfs"]).arg(&disk).output();
    let refusal = match mounted {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(refusal) = refusal {
        // Past the capture of output, so that the skip is seen.
        writeln!(std::io::stderr(), "skipped: no small file system can be mounted here: {refusal}").unwrap();
        return;
    }
    let _unmount = Unmount(&disk);
    succeed(folder.path(), "train synthetic:normal:40x64 --layers 64-2 --epochs 1 --out run");
    let line = "reconstruct --run run --data synthetic:normal:3000x64 --out disk/r.npy";
    check_refusal(line, &cvae(folder.path(), line), &["disk/r.npy"]);
    assert_eq!(listing(&disk).len(), 0);

    // A model that does not fit: the folder may hold what was complete before, and no temporary file.
    let line = "train --layers 64-256-8 --epochs 1 --out disk/run";
    check_refusal(line, &cvae(folder.path(), line), &["disk/run"]);
    for file in listing(&disk).into_keys() {
        assert!(file.extension().is_some_and(|extension| extension != "tmp"), "{}", file.display());
    }
    // Once there is room, the same command goes on.
    succeed(folder.path(), "train --layers 64-4 --epochs 1 --out disk/small");
}

/// Unmounts when a test ends, however it ends.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}
