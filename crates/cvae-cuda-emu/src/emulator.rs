//! The Rust side of the emulated driver: loading, options, statistics and the removal of call sites.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use thiserror::Error;

/// Why the emulated driver could not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The library is missing or broken.
    #[error("cannot load the emulated driver from {path}")]
    Load {
        /// Where it was looked for.
        path: String,
        /// The loader's reason.
        #[source]
        source: libloading::Error,
    },
}

/// How the emulated GPU behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Order in which blocks, warps and lanes run; 0 is their natural order. With an odd seed asynchronous copies
    /// land when they are issued, with an even one when they are waited for.
    pub seed: u64,
    /// Bytes of device memory.
    pub memory: u64,
    /// Multiprocessors; a cooperative launch may have as many blocks.
    pub multiprocessors: u64,
    /// Whether the driver finds a GPU.
    pub device: bool,
    /// What the driver says of its version: 1000 times the major one plus 10 times the minor one.
    pub driver_version: u64,
    /// The number, counted from 1, of the launch that loses the device; 0 for none.
    pub fail_launch: u64,
    /// The number, counted from 1, of the allocation of device memory that finds none; 0 for none.
    pub fail_allocation: u64,
    /// Whether stream operations run when they are issued, instead of when somebody waits for them.
    pub early_streams: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            memory: 4 << 30,
            multiprocessors: 4,
            device: true,
            driver_version: 13_000,
            fail_launch: 0,
            fail_allocation: 0,
            early_streams: false,
        }
    }
}

/// What the emulated driver holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Kernels run since the device was last revived.
    pub launches: u64,
    /// Allocations of device memory tried since then.
    pub allocations: u64,
    /// Live allocations of device memory.
    pub device_allocations: u64,
    /// Bytes of them.
    pub device_bytes: u64,
    /// Live allocations of pinned host memory.
    pub host_allocations: u64,
    /// Live streams.
    pub streams: u64,
    /// Live events.
    pub events: u64,
    /// Loaded modules.
    pub modules: u64,
    /// Live graphs, instantiated or not.
    pub graphs: u64,
}

/// Kinds of call sites that [`Emulator::remove`] can remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SiteKind {
    /// A barrier of the block.
    BlockBarrier,
    /// A barrier of the grid.
    GridBarrier,
    /// A wait for asynchronous copies.
    AsyncWait,
    /// The bounds check of a ragged edge.
    Mask,
}

/// A call site of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// What is called.
    pub kind: SiteKind,
    /// File name without folders.
    pub file: String,
    /// Line.
    pub line: u32,
    index: usize,
}

/// The loaded emulated driver. There is one per process; its options are the process's.
///
/// Another program can be run on it by putting the folder of [`Emulator::library`] into `LD_LIBRARY_PATH`. It takes its
/// options from the variable [`Emulator::VARIABLE`], as `memory=1000000,fail_launch=3`.
#[derive(Clone, Copy, Debug)]
pub struct Emulator {
    object: &'static Library,
}

impl Emulator {
    /// The environment variable with options for programs that do not know the emulator; named as in [`Options`].
    pub const VARIABLE: &str = "CVAE_CUDA_EMU";

    /// The file of the emulated driver.
    pub fn library() -> &'static Path {
        Path::new(env!("CVAE_CUDA_EMU_LIBRARY"))
    }

    /// Loads the emulated driver so that `cudarc` finds it. Call it before anything asks for a GPU.
    ///
    /// # Errors
    /// [`InstallError::Load`] when the library was not built (it is for Linux only) or cannot be loaded.
    pub fn install() -> Result<Self, InstallError> {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        if LIBRARY.get().is_none() {
            // SAFETY: the library is built by this crate; its initialisers touch nothing but its own state.
            let opened = unsafe { Library::open(Some(Self::library()), RTLD_NOW | RTLD_GLOBAL) };
            let library =
                opened.map_err(|source| InstallError::Load { path: Self::library().display().to_string(), source })?;
            // Loading twice gives the same handle, so a race loses nothing.
            let _ = LIBRARY.set(library);
        }
        Ok(Self { object: LIBRARY.get_or_init(|| unreachable!("set above")) })
    }

    /// Sets every option, and makes a lost device usable again.
    pub fn configure(self, options: Options) {
        let values = [
            (c"seed", options.seed),
            (c"memory", options.memory),
            (c"multiprocessors", options.multiprocessors),
            (c"device", u64::from(options.device)),
            (c"driver_version", options.driver_version),
            (c"fail_launch", options.fail_launch),
            (c"fail_allocation", options.fail_allocation),
            (c"early_streams", u64::from(options.early_streams)),
        ];
        self.call::<unsafe extern "C" fn(), _>(c"emu_revive", |revive| {
            // SAFETY: the function takes no arguments.
            unsafe { revive() }
        });
        for (name, value) in values {
            self.call::<unsafe extern "C" fn(*const c_char, u64) -> c_int, _>(c"emu_set", |set| {
                // SAFETY: the name is a C string that outlives the call.
                let status = unsafe { set(name.as_ptr(), value) };
                assert_eq!(status, 0, "the emulated driver has no option {name:?}");
            });
        }
    }

    /// What the driver holds now.
    pub fn statistics(self) -> Statistics {
        Statistics {
            launches: self.get(c"launches"),
            allocations: self.get(c"allocations"),
            device_allocations: self.get(c"device_allocations"),
            device_bytes: self.get(c"device_bytes"),
            host_allocations: self.get(c"host_allocations"),
            streams: self.get(c"streams"),
            events: self.get(c"events"),
            modules: self.get(c"modules"),
            graphs: self.get(c"graphs"),
        }
    }

    /// The call sites that have been reached so far, in file order.
    pub fn sites(self) -> Vec<Site> {
        let count = self.get(c"sites") as usize;
        let mut sites: Vec<Site> = (0..count).filter_map(|index| self.site(index)).collect();
        sites.sort();
        sites
    }

    fn site(self, index: usize) -> Option<Site> {
        type Read = unsafe extern "C" fn(usize, *mut c_int, *mut *const c_char, *mut c_int) -> c_int;
        let (mut kind, mut file, mut line) = (0, std::ptr::null(), 0);
        let status = self.call::<Read, _>(c"emu_site", |read| {
            // SAFETY: the three results are live locals.
            unsafe { read(index, &raw mut kind, &raw mut file, &raw mut line) }
        });
        if status != 0 || file.is_null() {
            return None;
        }
        let kind = match kind {
            0 => SiteKind::BlockBarrier,
            1 => SiteKind::GridBarrier,
            2 => SiteKind::AsyncWait,
            _ => SiteKind::Mask,
        };
        // SAFETY: the driver returns a C string literal of its own.
        let file = unsafe { CStr::from_ptr(file) }.to_string_lossy().into_owned();
        let file = file.rsplit('/').next().unwrap_or_default().to_owned();
        Some(Site { kind, file, line: line.unsigned_abs(), index })
    }

    /// Removes one call site from the kernels until the next call: a barrier or a wait returns at once, a bounds
    /// check lets everything pass. `None` puts everything back.
    pub fn remove(self, site: Option<&Site>) {
        self.call::<unsafe extern "C" fn(usize), _>(c"emu_remove_site", |remove| {
            // SAFETY: any index is allowed; one out of range removes nothing.
            unsafe { remove(site.map_or(usize::MAX, |site| site.index)) }
        });
    }

    fn get(self, name: &CStr) -> u64 {
        let mut value = 0;
        let status = self.call::<unsafe extern "C" fn(*const c_char, *mut u64) -> c_int, _>(c"emu_get", |get| {
            // SAFETY: the name is a C string and the result a live local.
            unsafe { get(name.as_ptr(), &raw mut value) }
        });
        assert_eq!(status, 0, "the emulated driver has no statistic {name:?}");
        value
    }

    /// Calls `body` with the function `name`, whose type is `F`.
    fn call<F: Copy, R>(self, name: &CStr, body: impl FnOnce(F) -> R) -> R {
        let name = CString::from(name);
        // SAFETY: the library is this crate's own, and every caller names the function's C type.
        match unsafe { self.object.get::<F>(name.as_bytes_with_nul()) } {
            Ok(function) => body(*function),
            Err(error) => unreachable!("the emulated driver exports {name:?}: {error}"),
        }
    }
}
