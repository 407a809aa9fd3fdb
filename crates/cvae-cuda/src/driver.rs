//! A thin owner of every driver object that the backend uses: device, stream, events, memory, module, graphs.
//!
//! Each wrapper frees its object when dropped and says what failed. Nothing here may run before
//! [`crate::detect`] has found a driver, because cudarc panics when the library is missing.

use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult};

use crate::fault::Named;
pub(crate) use crate::fault::{Driven, Fault};

/// Types that may be copied between host and device byte by byte.
///
/// # Safety
/// Every bit pattern is a value, and the type has no padding.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: plain numbers.
unsafe impl Plain for u8 {}
// SAFETY: plain numbers.
unsafe impl Plain for u32 {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}
// SAFETY: plain numbers.
unsafe impl Plain for f64 {}

/// A GPU with its primary context retained.
#[derive(Debug)]
pub(crate) struct Device {
    handle: sys::CUdevice,
    context: sys::CUcontext,
    pub(crate) name: String,
    pub(crate) memory: u64,
    pub(crate) capability: (i32, i32),
    pub(crate) multiprocessors: usize,
    pub(crate) cooperative: bool,
}

// SAFETY: a CUDA context may be used from any thread once it is made current there, which `bind` does.
unsafe impl Send for Device {}
// SAFETY: as above; the driver synchronises its own state.
unsafe impl Sync for Device {}

impl Device {
    /// Opens the GPU `ordinal`. A driver must have been found before.
    pub(crate) fn open(ordinal: usize) -> Driven<Arc<Self>> {
        let handle = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX)).named("opening the GPU")?;
        let attribute = |attribute| {
            // SAFETY: `handle` was returned by the driver.
            unsafe { result::device::get_attribute(handle, attribute) }.named("reading the GPU's attributes")
        };
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let cooperative = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0;
        let name = result::device::get_name(handle).named("reading the GPU's name")?;
        // SAFETY: `handle` was returned by the driver.
        let memory = unsafe { result::device::total_mem(handle) }.named("reading the GPU's memory")? as u64;
        // SAFETY: as above; the context is released when the device is dropped.
        let context = unsafe { result::primary_ctx::retain(handle) }.named("opening a context")?;
        let device = Self {
            handle,
            context,
            name,
            memory,
            capability,
            multiprocessors: usize::try_from(multiprocessors).unwrap_or(1).max(1),
            cooperative,
        };
        device.bind()?;
        Ok(Arc::new(device))
    }

    /// Makes the context current on this thread; every other call needs it.
    pub(crate) fn bind(&self) -> Driven<()> {
        // SAFETY: the context is retained for the life of `self`.
        unsafe { result::ctx::set_current(self.context) }.named("selecting the GPU")
    }

    /// Bytes of device memory that are free now.
    pub(crate) fn free_memory(&self) -> Driven<u64> {
        self.bind()?;
        result::mem_get_info().map(|(free, _)| free as u64).named("reading the free memory")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained in `open`. A failure here means a lost device, which leaves nothing to release.
        let _ = unsafe { result::primary_ctx::release(self.handle) };
    }
}

/// Device memory for `len` values.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    address: sys::CUdeviceptr,
    len: usize,
    _device: Arc<Device>,
    _marker: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// Allocates memory whose contents are undefined; at least 16 bytes, rounded up to a multiple of 16.
    pub(crate) fn new(device: &Arc<Device>, len: usize, what: &'static str) -> Driven<Self> {
        device.bind()?;
        let bytes = len.saturating_mul(size_of::<T>()).max(1).next_multiple_of(16);
        // SAFETY: an allocation has no precondition; it is freed when the buffer is dropped.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(Self { address, len, _device: device.clone(), _marker: PhantomData }),
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(Fault::Memory { bytes, what }),
            Err(source) => Err(Fault::Driver { operation: "allocating device memory", source }),
        }
    }

    /// Allocates zeroed memory.
    pub(crate) fn zeroed(stream: &Stream, len: usize, what: &'static str) -> Driven<Self> {
        let buffer = Self::new(&stream.device, len, what)?;
        stream.clear(&buffer)?;
        Ok(buffer)
    }

    /// The device address of element `index`.
    pub(crate) fn address(&self, index: usize) -> u64 {
        debug_assert!(index <= self.len, "element {index} of {}", self.len);
        self.address + (index * size_of::<T>()) as u64
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let _ = self._device.bind();
        // SAFETY: allocated in `new` and freed once. The driver waits for work that uses the memory.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Page-locked host memory for `len` values, which the device copies from and to without staging.
#[derive(Debug)]
pub(crate) struct Pinned<T> {
    pointer: *mut T,
    len: usize,
    _device: Arc<Device>,
}

// SAFETY: the memory is owned and accessed through `&self` and `&mut self` alone.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T: Plain> Pinned<T> {
    /// Allocates zeroed memory.
    pub(crate) fn new(device: &Arc<Device>, len: usize, what: &'static str) -> Driven<Self> {
        device.bind()?;
        let bytes = len.saturating_mul(size_of::<T>()).max(1);
        // SAFETY: an allocation has no precondition; it is freed when the value is dropped.
        match unsafe { result::malloc_host(bytes, 0) } {
            Ok(pointer) => {
                // SAFETY: the driver returned `bytes` writable bytes; a page is aligned for every `T`.
                unsafe { pointer.cast::<u8>().write_bytes(0, bytes) };
                Ok(Self { pointer: pointer.cast(), len, _device: device.clone() })
            }
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(Fault::Memory { bytes, what }),
            Err(source) => Err(Fault::Driver { operation: "allocating pinned memory", source }),
        }
    }

    /// The values. The caller has waited for copies into them.
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: `len` initialised values of a `Plain` type.
        unsafe { std::slice::from_raw_parts(self.pointer, self.len) }
    }

    /// The values. The caller has waited for copies from and into them.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        let _ = self._device.bind();
        // SAFETY: allocated in `new` and freed once. The driver waits for copies that use the memory.
        let _ = unsafe { result::free_host(self.pointer.cast()) };
    }
}

/// A queue of work on the device, not synchronised with any other.
#[derive(Debug)]
pub(crate) struct Stream {
    handle: sys::CUstream,
    pub(crate) device: Arc<Device>,
}

// SAFETY: a stream may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver synchronises its own state.
unsafe impl Sync for Stream {}

impl Stream {
    pub(crate) fn new(device: &Arc<Device>) -> Driven<Self> {
        device.bind()?;
        let handle = result::stream::create(result::stream::StreamKind::NonBlocking).named("creating a stream")?;
        Ok(Self { handle, device: device.clone() })
    }

    /// Waits for everything that was issued.
    pub(crate) fn synchronize(&self) -> Driven<()> {
        // SAFETY: the stream is alive.
        unsafe { result::stream::synchronize(self.handle) }.named("running the kernels")
    }

    /// Fills a buffer with zero bytes.
    pub(crate) fn clear<T: Plain>(&self, buffer: &Buffer<T>) -> Driven<()> {
        let bytes = buffer.len * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the buffer has that many bytes, and frees wait for the stream.
        unsafe { result::memset_d8_async(buffer.address, 0, bytes, self.handle) }.named("clearing device memory")
    }

    /// Copies host values to the buffer from element `first` on. Pageable values are staged before this returns;
    /// pinned ones must stay as they are until the copy is done.
    pub(crate) fn upload<T: Plain>(&self, buffer: &Buffer<T>, first: usize, values: &[T]) -> Driven<()> {
        assert!(first + values.len() <= buffer.len, "a copy within the buffer");
        // SAFETY: the range lies in the buffer, as just checked, and frees wait for the stream.
        unsafe { result::memcpy_htod_async(buffer.address(first), values, self.handle) }.named("copying to the GPU")
    }

    /// Copies from the buffer, from element `first` on, and waits.
    pub(crate) fn download<T: Plain>(&self, buffer: &Buffer<T>, first: usize, values: &mut [T]) -> Driven<()> {
        assert!(first + values.len() <= buffer.len, "a copy within the buffer");
        // SAFETY: the range lies in the buffer, as just checked, and the stream is waited for before returning.
        unsafe { result::memcpy_dtoh_async(values, buffer.address(first), self.handle) }
            .named("copying from the GPU")?;
        self.synchronize()
    }

    /// Launches a kernel with `THREADS` threads a block.
    ///
    /// # Safety
    /// `arguments` point to values of the kernel's parameter types, and every address in them and behind them is
    /// valid for what the kernel does.
    pub(crate) unsafe fn launch(
        &self,
        function: &Function,
        blocks: u32,
        cooperative: bool,
        arguments: &mut [*mut c_void],
    ) -> Driven<()> {
        let (grid, block) = ((blocks, 1, 1), (THREADS, 1, 1));
        if cooperative {
            // SAFETY: the caller's promise.
            unsafe {
                result::launch_cooperative_kernel(function.handle, grid, block, SHARED_BYTES, self.handle, arguments)
            }
        } else {
            // SAFETY: the caller's promise.
            unsafe { result::launch_kernel(function.handle, grid, block, SHARED_BYTES, self.handle, arguments) }
        }
        .named("launching a kernel")
    }

    /// Makes later work of this stream wait for the event.
    pub(crate) fn wait(&self, event: &Event) -> Driven<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: stream and event are alive.
        unsafe { result::stream::wait_event(self.handle, event.handle, flags) }.named("ordering streams")
    }

    /// Records what `body` issues as a graph instead of running it.
    pub(crate) fn capture(&self, body: impl FnOnce() -> Driven<()>) -> Driven<Graph> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and not the default one.
        unsafe { result::stream::begin_capture(self.handle, mode) }.named("recording a graph")?;
        let issued = body();
        // SAFETY: as above; a capture is ended whether or not its body succeeded.
        let graph = unsafe { result::stream::end_capture(self.handle) }.named("recording a graph");
        issued?;
        let graph = graph?;
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the graph was just recorded.
        let exec = unsafe { result::graph::instantiate(graph, flags) }.named("instantiating a graph");
        // SAFETY: the executable graph does not need its template, which is destroyed once.
        let destroyed = unsafe { result::graph::destroy(graph) }.named("recording a graph");
        let graph = Graph { handle: exec?, device: self.device.clone() };
        destroyed.map(|()| graph)
    }

    /// Runs a recorded graph.
    pub(crate) fn replay(&self, graph: &Graph) -> Driven<()> {
        // SAFETY: graph and stream are alive, as are the buffers that the graph's kernels use.
        unsafe { result::graph::launch(graph.handle, self.handle) }.named("launching a graph")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: created in `new` and destroyed once.
        let _ = unsafe { result::stream::destroy(self.handle) };
    }
}

/// A recorded sequence of launches.
#[derive(Debug)]
pub(crate) struct Graph {
    handle: sys::CUgraphExec,
    device: Arc<Device>,
}

// SAFETY: used by one executable at a time.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: instantiated in `capture` and destroyed once.
        let _ = unsafe { result::graph::exec_destroy(self.handle) };
    }
}

/// A point in a stream that can be waited for.
#[derive(Debug)]
pub(crate) struct Event {
    handle: sys::CUevent,
    device: Arc<Device>,
}

// SAFETY: an event may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event; with `timing` it can tell the time between itself and another.
    pub(crate) fn new(device: &Arc<Device>, timing: bool) -> Driven<Self> {
        device.bind()?;
        let flags = match timing {
            true => sys::CUevent_flags::CU_EVENT_DEFAULT,
            false => sys::CUevent_flags::CU_EVENT_DISABLE_TIMING,
        };
        let handle = result::event::create(flags).named("creating an event")?;
        Ok(Self { handle, device: device.clone() })
    }

    /// Moves the event to the end of the stream.
    pub(crate) fn record(&self, stream: &Stream) -> Driven<()> {
        // SAFETY: event and stream are alive.
        unsafe { result::event::record(self.handle, stream.handle) }.named("recording an event")
    }

    /// Waits until the work before the event is done; returns at once if it was never recorded.
    pub(crate) fn synchronize(&self) -> Driven<()> {
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.handle) }.named("running the kernels")
    }

    /// Milliseconds of device time from this event to `end`, both passed.
    pub(crate) fn milliseconds_to(&self, end: &Self) -> Driven<f32> {
        // SAFETY: both events are alive.
        unsafe { result::event::elapsed(self.handle, end.handle) }.named("reading the time")
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: created in `new` and destroyed once.
        let _ = unsafe { result::event::destroy(self.handle) };
    }
}

/// Threads of a block.
pub(crate) const THREADS: u32 = 256;
/// Dynamic shared memory of every kernel: the stages of the larger tile (`kernels/linear.cu`).
pub(crate) const SHARED_BYTES: u32 = 3 * 2 * 64 * 36 * 4;

/// Loaded kernels.
#[derive(Debug)]
pub(crate) struct Module {
    handle: sys::CUmodule,
    device: Arc<Device>,
}

// SAFETY: a module may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads an image made by the CUDA compiler.
    pub(crate) fn load(device: &Arc<Device>, image: &'static [u8]) -> Driven<Arc<Self>> {
        device.bind()?;
        // SAFETY: the image is a fat binary, whose header tells its length.
        let handle = unsafe { result::module::load_data(image.as_ptr().cast()) }.named("loading the kernels")?;
        Ok(Arc::new(Self { handle, device: device.clone() }))
    }

    /// Finds a kernel and lets it use [`SHARED_BYTES`].
    pub(crate) fn function(self: &Arc<Self>, name: &str) -> Driven<Function> {
        let operation = "finding a kernel";
        let Ok(name) = CString::new(name) else {
            return Err(Fault::Driver { operation, source: DriverError(CUresult::CUDA_ERROR_NOT_FOUND) });
        };
        // SAFETY: the module is alive, and kept so by the function.
        let handle = unsafe { result::module::get_function(self.handle, name) }.named(operation)?;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to the live module.
        unsafe { result::function::set_function_attribute(handle, attribute, SHARED_BYTES as i32) }.named(operation)?;
        Ok(Function { handle, _module: self.clone() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: loaded in `load` and unloaded once.
        let _ = unsafe { result::module::unload(self.handle) };
    }
}

/// A kernel.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    handle: sys::CUfunction,
    _module: Arc<Module>,
}

// SAFETY: a function may be used from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// Blocks of this kernel that fit on one multiprocessor at a time.
    pub(crate) fn resident_blocks(&self) -> Driven<usize> {
        // SAFETY: the function is alive.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(self.handle, THREADS as i32, SHARED_BYTES as usize)
        };
        blocks.map(|blocks| usize::try_from(blocks).unwrap_or(0)).named("reading the kernels' occupancy")
    }
}
