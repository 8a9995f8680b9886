//! What this executable can do when it is launched as an agent or a segment.

use glasshouse_attest::software::{RuntimeStateCell, SoftwareAttestor, harden};
use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::traits::Device;
use glasshouse_provider::Registry;
use glasshouse_train::MlpWorkload;

/// The MLP, the software attestor and the host zeroizer.
pub fn registry() -> Registry {
    let registry = Registry::new()
        .workload(MlpWorkload::new)
        .attestor(EvidenceKind::Software, |context| {
            harden(context.anti_debug)?;
            let state = RuntimeStateCell::new();
            let follower = state.clone();
            context.on_state(move |next| {
                follower.enter(next);
            });
            Ok(SoftwareAttestor::new(state)?.image_digest(context.image_digest))
        })
        .zeroizer(|_device: Device| Some(HostZeroizer::new()));
    with_gpu(registry)
}

#[cfg(feature = "cuda")]
fn with_gpu(registry: Registry) -> Registry {
    use glasshouse_provider::roles::DeviceFacts;
    use glasshouse_train::cuda_zeroizer::CudaZeroizer;
    // Added last, and so used where it answers: a CPU keeps the host's.
    let registry = registry.zeroizer(|device| (device == Device::Cuda).then(CudaZeroizer::new));
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
