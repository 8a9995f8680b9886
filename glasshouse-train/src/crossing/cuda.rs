use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::CudaDType;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, Device, Error, InplaceOp1, Layout, Result, Shape, Storage, Tensor, WithDType,
    backend::BackendStorage as _, bail,
};

use crate::cuda_zeroizer::{Crossing, PinnedBuffer, STAGING};
use crate::ops::unwritten;

/// What crosses: u32, f32, f64.
pub(crate) trait Number: WithDType + CudaDType + Crossing + Default {}
impl<T: WithDType + CudaDType + Crossing + Default> Number for T {}

/// One for the process, made when it is needed: it is locked for a copy and clean between two.
static BUFFER: Mutex<Option<PinnedBuffer>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<PinnedBuffer>> {
    BUFFER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn release() {
    lock().take();
}

pub(super) fn to_device<T: Number>(values: &[T], shape: Shape, device: &Device) -> Result<Tensor> {
    if values.len() != shape.elem_count() {
        bail!("{} values are no tensor of shape {shape:?}", values.len());
    }
    let tensor = unwritten(shape, T::DTYPE, device)?;
    tensor.inplace_op1(&Upload(values))?;
    Ok(tensor)
}

/// Of a contiguous tensor.
pub(super) fn to_host<T: Number>(tensor: &Tensor) -> Result<Vec<T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a copy from CUDA of a tensor that is not there") };
    let mut values = vec![T::default(); layout.shape().elem_count()];
    let slice = storage.as_cuda_slice::<T>()?;
    through(storage.device(), |buffer, device| {
        buffer.download(&device.cuda_stream(), slice, layout.start_offset(), &mut values)
    })?;
    Ok(values)
}

struct Upload<'a, T>(&'a [T]);

impl<T: Number> InplaceOp1 for Upload<'_, T> {
    fn name(&self) -> &'static str {
        "upload"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("an upload to a CPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let (device, start) = (storage.device().clone(), layout.start_offset());
        let slice = storage.as_cuda_slice_mut::<T>()?;
        let Some(mut place) = slice.try_slice_mut(start..start + self.0.len()) else {
            bail!("an upload of {} values leaves its tensor", self.0.len())
        };
        through(&device, |buffer, device| buffer.upload(&device.cuda_stream(), self.0, &mut place))
    }
}

/// Copies through the buffer.
fn through<E: std::error::Error + Send + Sync + 'static>(
    device: &CudaDevice,
    copy: impl FnOnce(&mut PinnedBuffer, &CudaDevice) -> std::result::Result<(), E>,
) -> Result<()> {
    let stream = device.cuda_stream();
    let mut held = lock();
    if held.as_ref().is_some_and(|buffer| !buffer.is_of(stream.context())) {
        held.take();
    }
    let buffer = match held.take() {
        Some(buffer) => buffer,
        None => PinnedBuffer::new(stream.context(), STAGING).map_err(Error::wrap)?,
    };
    copy(held.insert(buffer), device).map_err(Error::wrap)
}
