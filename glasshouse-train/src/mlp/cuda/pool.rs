//! candle's device, and the memory pool that it allocates from: kept while it trains, emptied at the end.
#![allow(unsafe_code)] // the pool's attributes, and event tracking, are the driver's own calls

use candle_core::Device;
use cudarc::driver::sys::{
    CUmemPool_attribute, CUmemoryPool, cuDeviceGetDefaultMemPool, cuMemPoolGetAttribute, cuMemPoolSetAttribute,
    cuMemPoolTrimTo,
};
use glasshouse_core::traits::WorkloadError;

use super::device::told;

/// candle's first CUDA device on a stream of its own, for the plain path: no events, and freed memory stays in the pool,
/// so that each epoch's allocations cost nothing after the first.
pub(crate) fn candle_device() -> Result<Device, WorkloadError> {
    let device = told("opening CUDA device 0", Device::new_cuda_with_stream(0))?;
    let cuda = told("opening CUDA device 0", device.as_cuda_device())?;
    // SAFETY: all tensors live on this device's one stream.
    unsafe { cuda.disable_event_tracking() };
    let (pool, mut threshold) = (default_pool()?, u64::MAX);
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the value is alive and of the type that the driver API names for this attribute (u64); the device's context
    // is current on this thread since it was opened.
    unsafe {
        let value = (&raw mut threshold).cast();
        told("keeping the memory pool", cuMemPoolSetAttribute(pool, attribute, value).result())?;
    }
    Ok(device)
}

/// Gives the pool back to the driver, once every tensor was dropped. What candle computed on the way, and the optimizer's
/// moments, cannot be reached to be overwritten: they leave this process's address space here, and another process gets
/// such memory from the driver cleared. The host zeroizer's receipt says that device memory was not covered.
///
/// # Errors
/// [`WorkloadError::Device`] when the driver fails, or something stays in the pool: then nobody can say what it is.
pub(crate) fn empty_pool(device: &Device) -> Result<(), WorkloadError> {
    let cuda = told("finding the CUDA device", device.as_cuda_device())?;
    // Frees are enqueued like everything else.
    told("freeing device memory", device.synchronize())?;
    told("using the CUDA device", cuda.cuda_stream().context().bind_to_thread())?;
    let (pool, mut left) = (default_pool()?, 0_u64);
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
    // SAFETY: the value is alive and of the type that the driver API names for this attribute (u64); the device's context
    // was just made current on this thread.
    unsafe {
        told("giving device memory back", cuMemPoolTrimTo(pool, 0).result())?;
        let value = (&raw mut left).cast();
        told("looking at the memory pool", cuMemPoolGetAttribute(pool, attribute, value).result())?;
    }
    match left {
        0 => Ok(()),
        left => told("wiping device memory", Err(format!("{left} bytes stay in candle's pool; end the allocation"))),
    }
}

fn default_pool() -> Result<CUmemoryPool, WorkloadError> {
    let mut pool = std::ptr::null_mut();
    // SAFETY: the out-parameter is alive and of the type that the driver API names.
    told("finding the memory pool", unsafe { cuDeviceGetDefaultMemPool(&mut pool, 0).result() })?;
    Ok(pool)
}
