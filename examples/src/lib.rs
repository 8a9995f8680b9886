//! What the examples share: the registry of this executable, the flags of every provider, progress on a terminal, and
//! small words of command lines.

mod arguments;
mod curves;
mod demo;
mod hardware;
mod journals;
mod model;
mod offers;
mod outcome;
mod overhead_mlp;
mod progress;
mod provider_arguments;
mod providers;
mod registry;
mod rental;
mod terminal;
mod time;

pub use arguments::{DeviceName, DtypeName, FinetuneArguments, ModeName, ScheduleName};
pub use curves::{Curves, TokenRate};
pub use demo::demo_data;
pub use hardware::{HardwareArguments, public_key};
pub use journals::{JournalFile, journals, mention_unconfirmed, same_folder};
pub use model::{Model, WeightsAt, adapter_in, latest_checkpoint};
pub use offers::line;
pub use outcome::{compared, merge, trained};
pub use overhead_mlp::overhead_mlp;
pub use progress::Show;
pub use provider_arguments::{CloudName, PinnedImage, ProviderArguments, ProviderName, price};
pub use providers::providers;
pub use registry::registry;
pub use rental::Rental;
pub use terminal::{charset, default_out, fail, misused, say, warn};
pub use time::time;
