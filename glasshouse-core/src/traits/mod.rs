//! The four traits that a run is composed of, and the verifier at the owner's side.

mod attestor;
mod provider;
mod verifier;
mod workload;
mod zeroizer;

pub use attestor::{AttestError, Attestor};
pub use provider::{
    Allocation, AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer,
    OfferFilter, Provider, ProviderError, Spend, TrafficPrice,
};
pub use verifier::{Appraisal, Binding, ClaimSource, LabelledClaim, Verifier};
pub use workload::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
pub use zeroizer::{LargeBlocks, Receipt, SecretRegion, SmallBlocks, WipeTarget, WipedRegion, ZeroizeError, Zeroizer};
