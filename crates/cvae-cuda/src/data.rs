//! Data sets: resident in device memory, or kept on the host and streamed when they do not fit.

use cvae_core::{Rows, RunError};

use crate::driver::{Buffer, Driven, Event, Fault, Pinned, Stream};

/// How the elements of a data set are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Element {
    /// 32-bit floats.
    F32,
    /// Bytes that stand for `byte · scale`.
    U8 { scale: f32 },
}

impl Element {
    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::U8 { .. } => 1,
        }
    }
}

/// A data set.
#[derive(Debug)]
pub(crate) struct DataSet {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) element: Element,
    pub(crate) storage: Storage,
}

/// Where a data set lies.
#[derive(Debug)]
pub(crate) enum Storage {
    /// In device memory.
    Resident(Buffer<u8>),
    /// In host memory; its rows travel to the device as they are needed.
    Streamed(Vec<u8>),
}

impl DataSet {
    /// Takes the rows over: to the device if they fit into `budget` bytes, else to the host.
    pub(crate) fn new(stream: &Stream, rows: Rows<'_>, count: usize, budget: u64) -> Driven<Self> {
        let width = rows.width();
        let (element, bytes): (_, &[u8]) = match rows {
            Rows::F32 { values, .. } => (Element::F32, as_bytes(values)),
            Rows::U8 { values, scale, .. } => (Element::U8 { scale }, values),
        };
        let resident = match bytes.len() as u64 <= budget {
            true => match Buffer::<u8>::new(&stream.device, bytes.len(), "a data set") {
                Ok(buffer) => Some(buffer),
                Err(Fault::Memory { .. }) => None,
                Err(fault) => return Err(fault),
            },
            false => None,
        };
        let storage = match resident {
            Some(buffer) => {
                stream.upload(&buffer, 0, bytes)?;
                Storage::Resident(buffer)
            }
            None => {
                let mut copy = vec![];
                let memory = |_| Fault::Memory { bytes: bytes.len(), what: "a streamed data set" };
                copy.try_reserve_exact(bytes.len()).map_err(memory)?;
                copy.extend_from_slice(bytes);
                Storage::Streamed(copy)
            }
        };
        Ok(Self { rows: count, width, element, storage })
    }

    /// Bytes of one row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.width * self.element.size()
    }

    /// Checks that every index names a row.
    pub(crate) fn check(&self, order: &[u32]) -> Result<(), RunError> {
        match order.iter().find(|index| **index as usize >= self.rows) {
            Some(&index) => Err(RunError::RowIndex { index, rows: self.rows }),
            None => Ok(()),
        }
    }
}

/// The bytes of some floats, in memory order.
fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: a float is four initialised bytes, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Two windows through which a streamed data set passes, each pinned on the host and mirrored on the device.
///
/// While the kernels read one window, the other is filled and copied on a stream of its own.
#[derive(Debug)]
pub(crate) struct Windows {
    copies: Stream,
    windows: [Window; 2],
    next: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Window {
    host: Pinned<u8>,
    device: Buffer<u8>,
    /// The copy to the device is done.
    copied: Event,
    /// The kernels have read the window.
    used: Event,
}

impl Windows {
    /// Two windows of `bytes` bytes.
    pub(crate) fn new(stream: &Stream, bytes: usize) -> Driven<Self> {
        let device = &stream.device;
        let window = || {
            Ok(Window {
                host: Pinned::new(device, bytes, "the streaming windows")?,
                device: Buffer::new(device, bytes, "the streaming windows")?,
                copied: Event::new(device, false)?,
                used: Event::new(device, false)?,
            })
        };
        Ok(Self { copies: Stream::new(device)?, windows: [window()?, window()?], next: 0, bytes })
    }

    /// Bytes of one window.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fills the next window with the rows `order` of `data` and makes `compute` wait for it. Returns the window's
    /// device address. After the kernels that read it have been issued, [`Windows::release`] must follow.
    pub(crate) fn fill(&mut self, compute: &Stream, data: &[u8], row_bytes: usize, order: &[u32]) -> Driven<u64> {
        let window = &mut self.windows[self.next];
        // The host side may be overwritten once its last copy is done, the device side once its kernels are.
        window.copied.synchronize()?;
        let bytes = order.len() * row_bytes;
        let host = &mut window.host.as_mut_slice()[..bytes];
        for (row, &index) in host.chunks_exact_mut(row_bytes).zip(order) {
            let start = index as usize * row_bytes;
            row.copy_from_slice(&data[start..start + row_bytes]);
        }
        self.copies.wait(&window.used)?;
        self.copies.upload(&window.device, 0, &window.host.as_slice()[..bytes])?;
        window.copied.record(&self.copies)?;
        compute.wait(&window.copied)?;
        Ok(window.device.address(0))
    }

    /// Notes that the kernels issued so far are the last to read the window that was filled.
    pub(crate) fn release(&mut self, compute: &Stream) -> Driven<()> {
        self.windows[self.next].used.record(compute)?;
        self.next = 1 - self.next;
        Ok(())
    }
}
