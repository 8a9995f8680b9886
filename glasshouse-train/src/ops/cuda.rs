//! Launches of kernels.cu and of cuBLAS, on candle's device and stream.
#![allow(unsafe_code)] // kernel launches and cuBLAS; nothing outside this file touches them

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::backend::BackendStorage as _;
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr as _};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Storage, Tensor, bail};
use cudarc::cublas::result::gemm_strided_batched_ex;
use cudarc::cublas::sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t};
use cudarc::driver::{CudaFunction, CudaModule, DevicePtr as _, LaunchConfig, PushKernelArg as _};
use cudarc::nvrtc::Ptx;

use super::gemm::{Gemm, Places};

const KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ops.fatbin"));

/// A kernel for one type of numbers, on one device.
pub(super) struct Kernel<'a> {
    device: &'a CudaDevice,
    function: CudaFunction,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg {
    /// An address on the device.
    Pointer(u64),
    Long(u64),
    Word(u32),
    Float(f32),
}

impl Arg {
    /// The first value of a layout.
    pub(super) fn from(storage: &CudaStorage, layout: &Layout) -> Result<Self> {
        address(storage, layout.start_offset()).map(Self::Pointer)
    }

    /// The first value of a contiguous tensor, which must outlive the launch; what the stream does with it does not
    /// matter, since memory is freed on the same stream.
    pub(super) fn of(tensor: &Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) if layout.is_contiguous() => Self::from(storage, layout),
            _ => bail!("an operation on CUDA needs all its tensors there, contiguous"),
        }
    }

    pub(super) fn size(size: usize) -> Result<Self> {
        match u32::try_from(size) {
            Ok(size) => Ok(Self::Word(size)),
            Err(_) => bail!("{size} values are more than a kernel counts"),
        }
    }
}

impl<'a> Kernel<'a> {
    /// The kernel of this name for the type of a storage.
    pub(super) fn of(name: &str, storage: &'a CudaStorage) -> Result<Self> {
        let kind = match storage.dtype() {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            other => bail!("{name}: f32 and bf16 only, not {other:?}"),
        };
        let device = storage.device();
        Ok(Self { device, function: function(device, format!("{name}_{kind}"))? })
    }

    /// A thread for each value, or several values for each thread.
    pub(super) fn over(&self, count: usize, arguments: &[Arg]) -> Result<()> {
        self.launch(count.div_ceil(256).min(1 << 20), 256, arguments)
    }

    /// A block of 256 for each row.
    pub(super) fn rows(&self, rows: usize, arguments: &[Arg]) -> Result<()> {
        self.launch(rows, 256, arguments)
    }

    /// A block of 128 for each row.
    pub(super) fn blocks(&self, rows: usize, arguments: &[Arg]) -> Result<()> {
        self.launch(rows, 128, arguments)
    }

    /// A block of 1024 for each row.
    pub(super) fn wide_blocks(&self, rows: usize, arguments: &[Arg]) -> Result<()> {
        self.launch(rows, 1024, arguments)
    }

    /// A warp for each row, eight in a block; the number of rows goes before the other arguments.
    pub(super) fn warps(&self, rows: usize, arguments: &[Arg]) -> Result<()> {
        let mut all = vec![Arg::size(rows)?];
        all.extend_from_slice(arguments);
        self.launch(rows.div_ceil(8), 256, &all)
    }

    fn launch(&self, blocks: usize, threads: u32, arguments: &[Arg]) -> Result<()> {
        let Ok(blocks) = u32::try_from(blocks) else { bail!("{blocks} blocks are more than a grid holds") };
        if blocks == 0 {
            return Ok(());
        }
        let stream = self.device.cuda_stream();
        let mut launch = stream.launch_builder(&self.function);
        for argument in arguments {
            match argument {
                Arg::Pointer(value) | Arg::Long(value) => launch.arg(value),
                Arg::Word(value) => launch.arg(value),
                Arg::Float(value) => launch.arg(value),
            };
        }
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: arguments as the kernel of this name in kernels.cu takes them, and sizes as its operation checked them
        // against the layouts; the tensors live on this stream's device and are freed in its order.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }
}

/// `c = alpha a b + beta c` by cuBLAS, sums in f32.
pub(super) fn gemm(
    scalars: &Gemm,
    (c, a, b): (&mut CudaStorage, &CudaStorage, &CudaStorage),
    [cp, ap, bp]: [Places; 3],
) -> Result<()> {
    if cp.rows == 0 || cp.columns == 0 || cp.batch == 0 {
        return Ok(());
    }
    if cp.column_stride != 1 && cp.columns != 1 {
        bail!("a matrix product writes contiguous rows only, not {cp:?}");
    }
    let kinds = (c.dtype(), a.dtype(), b.dtype());
    let (c_kind, kind) = match kinds {
        (DType::F32, DType::F32, DType::F32) => (cudaDataType_t::CUDA_R_32F, cudaDataType_t::CUDA_R_32F),
        (DType::BF16, DType::BF16, DType::BF16) => (cudaDataType_t::CUDA_R_16BF, cudaDataType_t::CUDA_R_16BF),
        (DType::F32, DType::BF16, DType::BF16) => (cudaDataType_t::CUDA_R_32F, cudaDataType_t::CUDA_R_16BF),
        _ => bail!("a matrix product takes two f32 or two bf16 matrices, not {kinds:?}"),
    };
    // cuBLAS counts by columns: it computes the transpose, b's first.
    let ((b_op, b_lead), (a_op, a_lead)) = (leading(&bp)?, leading(&ap)?);
    let [m, n, k] = [int(cp.columns)?, int(cp.rows)?, int(ap.columns)?];
    let c_lead = int(cp.row_stride.max(cp.columns))?;
    let [c_step, a_step, b_step] = [cp, ap, bp].map(|places| places.batch_stride as i64);
    let [pc, pa, pb] = [address(c, cp.start)?, address(a, ap.start)?, address(b, bp.start)?];
    let handle = c.device().cublas_handle();
    let (alpha, beta) = ((&raw const scalars.alpha).cast::<c_void>(), (&raw const scalars.beta).cast::<c_void>());
    // SAFETY: the three places come from layouts that candle checked against their storages, on one device, whose stream
    // the handle works on; alpha and beta outlive the call, which reads them at once (pointer mode is host by default).
    unsafe {
        gemm_strided_batched_ex(
            *handle.handle(),
            b_op,
            a_op,
            m,
            n,
            k,
            alpha,
            pb as *const c_void,
            kind,
            b_lead,
            b_step,
            pa as *const c_void,
            kind,
            a_lead,
            a_step,
            beta,
            pc as *mut c_void,
            c_kind,
            c_lead,
            c_step,
            int(cp.batch)?,
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
    }
    .w()
}

/// Whether a matrix is transposed for cuBLAS, and the distance between its rows or columns.
fn leading(places: &Places) -> Result<(cublasOperation_t, i32)> {
    if places.column_stride == 1 || places.columns == 1 {
        Ok((cublasOperation_t::CUBLAS_OP_N, int(places.row_stride.max(places.columns))?))
    } else if places.row_stride == 1 || places.rows == 1 {
        Ok((cublasOperation_t::CUBLAS_OP_T, int(places.column_stride.max(places.rows))?))
    } else {
        bail!("a matrix product needs rows or columns that are contiguous, not {places:?}")
    }
}

fn int(size: usize) -> Result<i32> {
    match i32::try_from(size) {
        Ok(size) => Ok(size),
        Err(_) => bail!("{size} is more than cuBLAS counts"),
    }
}

fn address(storage: &CudaStorage, start: usize) -> Result<u64> {
    let stream = storage.device().cuda_stream();
    let (base, width) = match &storage.slice {
        CudaStorageSlice::F32(slice) => (slice.device_ptr(&stream).0, 4),
        CudaStorageSlice::BF16(slice) => (slice.device_ptr(&stream).0, 2),
        CudaStorageSlice::U32(slice) => (slice.device_ptr(&stream).0, 4),
        _ => bail!("operations take f32, bf16 and u32, not {:?}", storage.dtype()),
    };
    Ok(base + start as u64 * width)
}

/// Kernels that were loaded, by context and name.
static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Loaded {
    modules: HashMap<usize, Arc<CudaModule>>,
    functions: HashMap<(usize, String), CudaFunction>,
}

fn function(device: &CudaDevice, name: String) -> Result<CudaFunction> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let key = Arc::as_ptr(context) as usize;
    let mut guard = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = &mut *guard;
    if let Some(function) = loaded.functions.get(&(key, name.clone())) {
        return Ok(function.clone());
    }
    let module = match loaded.modules.get(&key) {
        Some(module) => module.clone(),
        None => {
            let module = context.load_module(Ptx::from_binary(KERNELS.to_vec())).w()?;
            loaded.modules.insert(key, module.clone());
            module
        }
    };
    let function = module.load_function(&name).w()?;
    loaded.functions.insert((key, name), function.clone());
    Ok(function)
}
