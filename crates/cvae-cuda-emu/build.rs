//! Compiles the emulated driver and the kernels of cvae-cuda into one shared library.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 3] = ["cpp/driver.cpp", "cpp/scheduler.cpp", "cpp/kernels.cpp"];
const KERNELS: &str = "../cvae-cuda/kernels";

fn main() -> Result<(), Box<dyn Error>> {
    for path in ["build.rs", "cpp", KERNELS] {
        println!("cargo::rerun-if-changed={path}");
    }
    let library = PathBuf::from(env::var("OUT_DIR")?).join("libcuda.so");
    println!("cargo::rustc-env=CVAE_CUDA_EMU_LIBRARY={}", library.display());
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        compile(&library)?;
    }
    Ok(())
}

fn compile(library: &Path) -> Result<(), Box<dyn Error>> {
    let compiler = cc::Build::new()
        .cpp(true)
        .pic(true)
        .opt_level(2)
        .debug(false)
        .std("c++17")
        .flags(["-fvisibility=hidden", "-ffp-contract=off", "-fno-strict-aliasing", "-ftls-model=initial-exec"])
        .flag("-Wno-unknown-pragmas")
        .include("cpp")
        .include(KERNELS)
        .try_get_compiler()?;
    let mut command = compiler.to_command();
    // The name under which cudarc looks first, so that this library is found even beside a real driver.
    command.args(["-shared", "-Wl,-soname,libcuda.so", "-o"]).arg(library).args(SOURCES);
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(format!("{command:?} ended with {status}").into()),
    }
}
