//! `cargo xtask kernels`: compiles the CUDA kernels ahead of time.
//!
//! The compiler comes from Python wheels in a virtual environment of its own, so that neither a build nor a run of
//! the project needs CUDA. Its output is a function of the sources: the committed image can be compared with them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::Command;
use crate::workspace::Workspace;

/// The compiler. Another version gives another image, and needs another driver.
const COMPILER: &str = "cuda-toolkit[nvcc,cudart,cccl]==13.0.*";
/// The sources, relative to the workspace.
const SOURCES: &str = "crates/cvae-cuda/kernels";
/// The image and the digest of the sources it was made from, relative to the workspace.
const IMAGE: &str = "crates/cvae-cuda/kernels.fatbin";
const DIGEST: &str = "crates/cvae-cuda/kernels.sha256";
/// Machine code for compute capability 8.0 and 9.0, and portable code for later ones.
const TARGETS: [&str; 3] =
    ["arch=compute_80,code=compute_80", "arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90"];

/// Arguments of the task.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Compare the committed image with what the sources give, and write nothing.
    #[arg(long)]
    check: bool,
    /// Virtual environment with the compiler; made if it is not there. By default `target/cuda-venv`.
    #[arg(long, value_name = "DIR")]
    venv: Option<PathBuf>,
}

/// Compiles the kernels and writes or checks the committed image.
///
/// # Errors
/// A compiler that cannot be had, kernels that do not compile or spill registers, or an image that differs.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let venv = arguments.venv.clone().unwrap_or_else(|| workspace.root().join("target/cuda-venv"));
    let nvcc = compiler(&venv)?;
    let output = tempfile::tempdir().context("making a temporary folder")?;
    let image = output.path().join("kernels.fatbin");
    compile(workspace, &nvcc, &image)?;
    let image = std::fs::read(&image).context("reading the compiled kernels")?;
    let digest = digest(workspace)?;
    let (image_path, digest_path) = (workspace.root().join(IMAGE), workspace.root().join(DIGEST));
    if arguments.check {
        let committed = std::fs::read(&image_path).with_context(|| format!("reading {IMAGE}"))?;
        let recorded = std::fs::read_to_string(&digest_path).with_context(|| format!("reading {DIGEST}"))?;
        if committed != image || recorded != digest {
            bail!("{IMAGE} is not what {SOURCES} gives; run `cargo xtask kernels` and commit the result");
        }
        println!("{IMAGE} is what {SOURCES} gives ({} bytes)", image.len());
        return Ok(());
    }
    std::fs::write(&image_path, &image).with_context(|| format!("writing {IMAGE}"))?;
    std::fs::write(&digest_path, digest).with_context(|| format!("writing {DIGEST}"))?;
    println!("wrote {IMAGE} ({} bytes) and {DIGEST}", image.len());
    Ok(())
}

/// The compiler in `venv`, installed there first if need be.
fn compiler(venv: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    if !python.exists() {
        Command::new("python3").args(["-m", "venv"]).args([venv]).run()?;
    }
    let find = "import nvidia.cu13 as n; print(list(n.__path__)[0])";
    let folder = match Command::new(&python).args(["-c", find]).output() {
        Ok(folder) => folder,
        Err(_) => {
            let pip = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", COMPILER];
            Command::new(&python).args(pip).run()?;
            Command::new(&python).args(["-c", find]).output()?
        }
    };
    let nvcc = Path::new(folder.trim()).join("bin/nvcc");
    match nvcc.exists() {
        true => Ok(nvcc),
        false => bail!("the compiler's wheels have no {}", nvcc.display()),
    }
}

/// Compiles to `image`. Warnings are errors, a spilled register among them.
fn compile(workspace: &Workspace, nvcc: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new(nvcc).folder(&workspace.root().join(SOURCES));
    command = command.args(["-std=c++17", "--fatbin", "--compress-mode=size", "--Werror", "all-warnings"]);
    command = command.args(["-Xptxas", "--warn-on-spills,--warning-as-error"]);
    for target in TARGETS {
        command = command.args(["-gencode", target]);
    }
    command.args(["-o"]).args([image]).args(["kernels.cu"]).run().context("compiling the kernels")
}

/// The digest of the sources, one line: SHA-256 over each file's name and contents in the order of names.
fn digest(workspace: &Workspace) -> Result<String> {
    let folder = workspace.root().join(SOURCES);
    let entries = std::fs::read_dir(&folder).with_context(|| format!("listing {SOURCES}"))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut hash = Sha256::new();
    for path in &paths {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(std::fs::read(path).with_context(|| format!("reading {}", path.display()))?);
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{hex}\n"))
}
