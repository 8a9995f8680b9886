//! What this executable can do when it is launched as an agent or a segment.

use glasshouse_attest::software::{ContainerSource, RuntimeStateCell, SoftwareAttestor, harden};
use glasshouse_attest::tee::TeeAttestor;
use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::traits::{AttestError, Device};
use glasshouse_provider::{Registry, SegmentContext};
use glasshouse_train::{MlpWorkload, QwenLora};

/// The MLP, Qwen LoRA, the attestors and the host zeroizer. Which attestor is made is the owner's verifier's to say; one
/// for which the machine has no TEE says so.
pub fn registry() -> Registry {
    let registry = Registry::new()
        .workload(MlpWorkload::new)
        .workload(QwenLora::new)
        .attestor(EvidenceKind::Software, |context| {
            let state = hardened(context)?;
            let source = container_source(context);
            Ok(SoftwareAttestor::new(state)?.image_digest(context.image_digest).container_source(source))
        })
        .attestor(EvidenceKind::Tdx, |context| with_gpus(TeeAttestor::tdx(hardened(context)?)?, context))
        .attestor(EvidenceKind::SevSnp, |context| with_gpus(TeeAttestor::sev_snp(hardened(context)?)?, context))
        .zeroizer(|_device: Device| Some(HostZeroizer::new()));
    with_gpu(registry)
}

/// Where the launch says that the container id is read; without a word of it, the kernel.
fn container_source(context: &SegmentContext) -> ContainerSource {
    context.container_source.as_deref().map(ContainerSource::named).unwrap_or_default()
}

/// Hardens the process, and follows its state from then on.
fn hardened(context: &SegmentContext) -> Result<RuntimeStateCell, AttestError> {
    harden(context.anti_debug)?;
    let state = RuntimeStateCell::new();
    let follower = state.clone();
    context.on_state(move |next| {
        follower.enter(next);
    });
    Ok(state)
}

#[cfg(feature = "nvml")]
fn with_gpus(attestor: TeeAttestor, context: &SegmentContext) -> Result<TeeAttestor, AttestError> {
    use glasshouse_attest::tee::NvmlGpus;
    let attestor = attestor.image_digest(context.image_digest).container_source(container_source(context));
    match NvmlGpus::load() {
        Ok(gpus) => Ok(attestor.gpus(Box::new(gpus))),
        // A machine without GPUs attests without: an owner whose policy asks for one refuses it.
        Err(AttestError::NotAvailable { .. }) => Ok(attestor),
        Err(failed) => Err(failed),
    }
}

#[cfg(not(feature = "nvml"))]
fn with_gpus(attestor: TeeAttestor, context: &SegmentContext) -> Result<TeeAttestor, AttestError> {
    Ok(attestor.image_digest(context.image_digest).container_source(container_source(context)))
}

#[cfg(feature = "cuda")]
fn with_gpu(registry: Registry) -> Registry {
    use glasshouse_provider::roles::DeviceFacts;
    use glasshouse_provider::roles::helper_command;
    use glasshouse_train::cuda_zeroizer::{CudaZeroizer, wipe_for_another};
    const WIPER: &str = "wiper";
    // Added last, and so used where it answers: a CPU keeps the host's.
    let zeroizer = || CudaZeroizer::new().after_an_error(|| helper_command(WIPER));
    let registry = registry.zeroizer(move |device| (device == Device::Cuda).then(zeroizer));
    let registry = registry.helper(WIPER, wipe_for_another);
    registry.device_probe(|device| {
        (device == Device::Cuda).then_some(())?;
        let gpu = glasshouse_train::gpu::GpuIdentity::first().ok()?;
        Some(DeviceFacts { model: gpu.model, driver: Some(gpu.driver), uuid: Some(gpu.uuid) })
    })
}

#[cfg(not(feature = "cuda"))]
fn with_gpu(registry: Registry) -> Registry {
    registry
}
