//! The device: one arena, two streams, and every operation of a plan enqueued on them.
#![allow(unsafe_code)] // kernel launches, cuBLAS and graph handles; nothing outside this file touches them

use std::cell::RefCell;
use std::fmt::Display;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use cudarc::cublas::sys::{cublasMath_t, cublasOperation_t, cublasSetMathMode, cublasSetWorkspace_v2};
use cudarc::cublas::{CudaBlas, result};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr as _, PushKernelArg as _,
};
use cudarc::nvrtc::Ptx;
use glasshouse_core::traits::WorkloadError;

use super::super::config::Optimizer;
use super::super::data::Floats;
use super::super::plan::{Gemm, Op, Plan, STATE, Tiles, UpdateOp};
use super::launch::{int, line, split, word};
use crate::cuda_zeroizer::{PinnedBuffer, STAGING};

/// What NVIDIA recommends for Hopper (cuBLAS, "cublasSetWorkspace"), in f32 values; one for each stream, of our own, so
/// that cuBLAS chooses the same algorithms every time and allocates nothing.
const WORKSPACE: usize = 32 << 20 >> 2;
const KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mlp.fatbin"));

/// The first CUDA device with a plan's arena on it. Owned and used by one thread at a time.
pub(super) struct CudaDevice {
    main: Lane,
    side: Lane,
    forked: CudaEvent,
    joined: CudaEvent,
    bias_relu: CudaFunction,
    loss: CudaFunction,
    mask: CudaFunction,
    update_adamw: CudaFunction,
    update_sgd: CudaFunction,
    optimizer: Optimizer,
    /// Everything that crosses goes through it, and it is wiped after each copy.
    staging: RefCell<PinnedBuffer>,
    /// A plan's values, then two workspaces.
    arena: CudaSlice<f32>,
    planned: usize,
}

struct Lane {
    /// Dropped by hand: its destructor panics where the driver gives an error, and of two panics at once the process aborts.
    blas: ManuallyDrop<CudaBlas>,
    stream: Arc<CudaStream>,
}

impl Lane {
    fn new(stream: Arc<CudaStream>) -> Result<Self, WorkloadError> {
        let blas = told("starting cuBLAS", CudaBlas::new(Arc::clone(&stream)))?;
        Ok(Self { blas: ManuallyDrop::new(blas), stream })
    }
}

impl Drop for Lane {
    /// On a device that is lost cuBLAS is left as it is; what lies there goes when the process lets go of the device.
    fn drop(&mut self) {
        let works = || self.stream.synchronize().is_ok();
        // A first error may be one that was recorded before and says nothing of the device.
        if works() || works() {
            // SAFETY: dropped here alone, once, and not used after it.
            unsafe { ManuallyDrop::drop(&mut self.blas) };
        }
    }
}

/// Epochs recorded once, to be launched many times.
pub(super) struct Graph(CudaGraph);

// SAFETY: a CUDA graph may be used from any thread, by one at a time (driver API, "Graphs thread safety"). `Graph` is
// neither Sync nor Clone, and `launch` makes the context current on the calling thread first.
unsafe impl Send for Graph {}

impl Drop for CudaDevice {
    /// Whatever way it goes, nothing of the run stays in device memory. An error here means that the device is lost.
    fn drop(&mut self) {
        let _ = self.wipe();
    }
}

impl CudaDevice {
    /// Allocates the arena, filled with zeros, and loads the kernels.
    pub(super) fn new(plan: &Plan, optimizer: Optimizer) -> Result<Self, WorkloadError> {
        let context = told("opening CUDA device 0", CudaContext::new(0))?;
        // SAFETY: the arena is the only slice; it is made and dropped on the main stream, and every use of it on the
        // side stream lies between a fork and a join. Turned off before the streams are made, so that nothing waits
        // for events inside a capture.
        unsafe { context.disable_event_tracking() };
        let [main, side] = [context.new_stream(), context.new_stream()].map(|stream| told("making a stream", stream));
        let (main, side) = (main?, side?);
        let module = told("loading the kernels", context.load_module(Ptx::from_binary(KERNELS.to_vec())))?;
        let function = |name| told("loading a kernel", module.load_function(name));
        let values = plan.arena.saturating_add(2 * WORKSPACE);
        let arena = told("allocating device memory", main.alloc_zeros::<f32>(values))?;
        told("clearing device memory", main.synchronize())?;
        let device = Self {
            forked: told("making an event", context.new_event(None))?,
            joined: told("making an event", context.new_event(None))?,
            bias_relu: function("bias_relu")?,
            loss: function("loss")?,
            mask: function("mask")?,
            update_adamw: function("update_adamw")?,
            update_sgd: function("update_sgd")?,
            main: Lane::new(main)?,
            side: Lane::new(side)?,
            optimizer,
            staging: RefCell::new(PinnedBuffer::new(&context, STAGING)?),
            arena,
            planned: plan.arena,
        };
        for (lane, start) in [(&device.main, plan.arena), (&device.side, plan.arena + WORKSPACE)] {
            let handle = *lane.blas.handle();
            let workspace = device.pointer(start).cast();
            // SAFETY: the handle is alive, and the workspace is WORKSPACE values of the arena that nothing else uses
            // and that outlive it: `main` and `side` are declared, and so dropped, before `arena`.
            unsafe {
                told("cublasSetWorkspace", cublasSetWorkspace_v2(handle, workspace, WORKSPACE * 4).result())?;
                // Plain f32: no TF32, so that results agree with the CPU's.
                told("cublasSetMathMode", cublasSetMathMode(handle, cublasMath_t::CUBLAS_DEFAULT_MATH).result())?;
            }
        }
        Ok(device)
    }

    /// Copies values to this place in the arena.
    pub(super) fn upload(&mut self, start: usize, values: &[f32]) -> Result<(), WorkloadError> {
        let mut place = self.arena.try_slice_mut(start..start.saturating_add(values.len())).ok_or_else(outside)?;
        self.staging.borrow_mut().upload(&self.main.stream, values, &mut place)
    }

    /// Copies values back from this place.
    pub(super) fn download(&self, start: usize, length: usize) -> Result<Floats, WorkloadError> {
        let mut values = Floats::new(vec![0.0; length]);
        self.staging.borrow_mut().download(&self.main.stream, &self.arena, start, values.as_mut_slice())?;
        Ok(values)
    }

    /// Overwrites the whole arena, workspaces included, with zeros.
    pub(super) fn wipe(&mut self) -> Result<(), WorkloadError> {
        // The side is joined before, unless enqueueing broke off between.
        told("running the epochs", self.side.stream.synchronize())?;
        self.synchronize()?;
        told("wiping device memory", self.main.stream.memset_zeros(&mut self.arena))?;
        self.synchronize()
    }

    /// Waits for everything that was enqueued. The side is always joined before.
    pub(super) fn synchronize(&self) -> Result<(), WorkloadError> {
        told("running the epochs", self.main.stream.synchronize())
    }

    /// Records what `enqueue` puts on the streams, without running it.
    pub(super) fn capture(
        &mut self,
        enqueue: impl FnOnce(&mut Self) -> Result<(), WorkloadError>,
    ) -> Result<Graph, WorkloadError> {
        // Relaxed, so that a library that loads code lazily on this thread does not break the capture.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        told("beginning a graph capture", self.main.stream.begin_capture(mode))?;
        let enqueued = enqueue(self);
        // Ended whatever came before, so that the stream can be used again.
        let graph = self.main.stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        match told("ending a graph capture", graph)? {
            Some(graph) => {
                told("uploading a graph", graph.upload())?;
                Ok(Graph(graph))
            }
            None => told("ending a graph capture", Err("no graph came of it")),
        }
    }

    /// Enqueues a captured graph.
    pub(super) fn launch(&mut self, graph: &Graph) -> Result<(), WorkloadError> {
        told("launching a graph", graph.0.launch())
    }

    /// Enqueues one operation of the plan that this device was made for.
    pub(super) fn enqueue(&mut self, op: &Op, state: usize) -> Result<(), WorkloadError> {
        match *op {
            Op::Gemm(gemm) => self.gemm(&gemm),
            Op::BiasRelu { z, bias, columns, count } => self.bias_relu(z, bias, columns, count),
            Op::Loss { output, bias, target, delta, squared, scale, tiles } => {
                self.loss([output, bias, target, delta, squared], scale, &tiles, state)
            }
            Op::Mask { delta, activation, tiles } => self.mask(delta, activation, &tiles),
            Op::Fork => {
                told("forking", self.forked.record(&self.main.stream))?;
                told("forking", self.side.stream.wait(&self.forked))
            }
            Op::Join => {
                told("joining", self.joined.record(&self.side.stream))?;
                told("joining", self.main.stream.wait(&self.joined))
            }
            Op::Update(update) => self.update(&update),
        }
    }

    fn gemm(&self, gemm: &Gemm) -> Result<(), WorkloadError> {
        let lane = if gemm.side { &self.side } else { &self.main };
        let [a, b] = gemm.transpose.map(|transposed| match transposed {
            true => cublasOperation_t::CUBLAS_OP_T,
            false => cublasOperation_t::CUBLAS_OP_N,
        });
        let [m, n, k, batch] = [int(gemm.m)?, int(gemm.n)?, int(gemm.k)?, int(gemm.batch)?];
        let [lda, ldb, ldc] = [int(gemm.leading[0])?, int(gemm.leading[1])?, int(gemm.leading[2])?];
        let [sa, sb, sc] = gemm.strides.map(|stride| stride as i64);
        let [pa, pb, pc] = [gemm.a, gemm.b, gemm.c].map(|start| self.pointer(start));
        let (handle, one, zero) = (*lane.blas.handle(), 1.0f32, 0.0f32);
        // SAFETY: sizes and places are a plan's for this arena; its tests run every kind of plan with each access
        // checked. Both scalars live past the call, which reads them at once (pointer mode is host by default).
        unsafe {
            told(
                "a matrix product",
                match gemm.batch {
                    1 => result::sgemm(handle, a, b, m, n, k, &one, pa, lda, pb, ldb, &zero, pc, ldc),
                    _ => result::sgemm_strided_batched(
                        handle, a, b, m, n, k, &one, pa, lda, sa, pb, ldb, sb, &zero, pc, ldc, sc, batch,
                    ),
                },
            )
        }
    }

    fn bias_relu(&mut self, z: usize, bias: usize, columns: usize, count: usize) -> Result<(), WorkloadError> {
        let ([z, bias], [columns, count]) = ([z as u64, bias as u64], [word(columns)?, word(count)?]);
        let mut launch = self.main.stream.launch_builder(&self.bias_relu);
        launch.arg(&mut self.arena).arg(&z).arg(&bias).arg(&columns).arg(&count);
        // SAFETY: arguments as `bias_relu` in kernels.cu takes them; places are a plan's for this arena.
        told("bias_relu", unsafe { launch.launch(line(count.div_ceil(4))) })?;
        Ok(())
    }

    fn loss(&mut self, places: [usize; 5], scale: f32, tiles: &Tiles, state: usize) -> Result<(), WorkloadError> {
        let (grid, [rows, columns, chunk], [sums, stride]) = split(tiles)?;
        let [output, bias, target, delta, squared] = places.map(|place| place as u64);
        let state = state as u64;
        let (beta1, beta2) = match self.optimizer {
            Optimizer::Adamw { beta1, beta2, .. } => (beta1, beta2),
            Optimizer::Sgd { .. } => (0.0, 0.0),
        };
        let mut launch = self.main.stream.launch_builder(&self.loss);
        launch.arg(&mut self.arena).arg(&output).arg(&bias).arg(&target).arg(&delta).arg(&squared).arg(&scale);
        launch.arg(&rows).arg(&columns).arg(&chunk).arg(&sums).arg(&stride).arg(&state).arg(&beta1).arg(&beta2);
        // SAFETY: arguments as `loss` in kernels.cu takes them; places are a plan's for this arena.
        told("loss", unsafe { launch.launch(grid) })?;
        Ok(())
    }

    fn mask(&mut self, delta: usize, activation: usize, tiles: &Tiles) -> Result<(), WorkloadError> {
        let (grid, [rows, columns, chunk], [sums, stride]) = split(tiles)?;
        let (delta, activation) = (delta as u64, activation as u64);
        let mut launch = self.main.stream.launch_builder(&self.mask);
        launch.arg(&mut self.arena).arg(&delta).arg(&activation).arg(&rows).arg(&columns).arg(&chunk);
        launch.arg(&sums).arg(&stride);
        // SAFETY: arguments as `mask` in kernels.cu takes them; places are a plan's for this arena.
        told("mask", unsafe { launch.launch(grid) })?;
        Ok(())
    }

    fn update(&mut self, op: &UpdateOp) -> Result<(), WorkloadError> {
        let [params, gradients, gradient_stride, sums, sum_stride] =
            [op.params, op.gradients, op.gradient_stride, op.sums, op.sum_stride].map(|place| place as u64);
        let [first, second, state] = [op.moments[0], op.moments[1], op.state].map(|place| place as u64);
        let (weights, splits) = (word(op.weights)?, word(op.splits)?);
        let (biases, chunks) = (word(op.biases)?, word(op.chunks)?);
        let grid = line(weights.saturating_add(biases));
        let kernel = match self.optimizer {
            Optimizer::Adamw { .. } => &self.update_adamw,
            Optimizer::Sgd { .. } => &self.update_sgd,
        };
        let mut launch = self.main.stream.launch_builder(kernel);
        launch.arg(&mut self.arena).arg(&params).arg(&weights).arg(&splits).arg(&gradients).arg(&gradient_stride);
        launch.arg(&biases).arg(&chunks).arg(&sums).arg(&sum_stride);
        match self.optimizer {
            Optimizer::Sgd { lr } => {
                let lr = lr as f32;
                launch.arg(&lr);
                // SAFETY: arguments as `update_sgd` in kernels.cu takes them; places are a plan's for this arena.
                told("update_sgd", unsafe { launch.launch(grid) })?;
            }
            Optimizer::Adamw { lr, beta1, beta2, eps, weight_decay } => {
                let [b1, n1, b2, n2] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(|value| value as f32);
                let [keep, lr, eps] = [1.0 - lr * weight_decay, lr, eps].map(|value| value as f32);
                launch.arg(&first).arg(&second).arg(&state).arg(&b1).arg(&n1).arg(&b2).arg(&n2);
                launch.arg(&keep).arg(&lr).arg(&eps);
                // SAFETY: arguments as `update_adamw` in kernels.cu takes them; places are a plan's for this arena.
                told("update_adamw", unsafe { launch.launch(grid) })?;
            }
        }
        Ok(())
    }

    /// Address of a value of the arena, on the device.
    fn pointer(&self, start: usize) -> *mut f32 {
        debug_assert!(start < self.planned + 2 * WORKSPACE);
        let (base, _) = self.arena.device_ptr(&self.main.stream);
        (base as *mut f32).wrapping_add(start)
    }
}

/// Values of the state, as they lie in the arena.
const _: () = assert!(STATE * 4 == 2 * 8 + 2 * 4);

/// Turns a library's error into the workload's.
pub(super) fn told<T, E: Display>(what: &str, result: Result<T, E>) -> Result<T, WorkloadError> {
    result.map_err(|error| WorkloadError::Device { what: what.to_owned(), why: error.to_string() })
}

fn outside() -> WorkloadError {
    WorkloadError::Device { what: "a copy".to_owned(), why: "it leaves the arena; report this as a bug".to_owned() }
}
