//! What the examples share: the registry of this executable, progress on a terminal, and small words of command lines.

mod arguments;
mod curves;
mod demo;
mod hardware;
mod model;
mod outcome;
mod progress;
mod registry;
mod terminal;
mod time;

pub use arguments::{DeviceName, DtypeName, FinetuneArguments, ModeName, ScheduleName};
pub use curves::{Curves, TokenRate};
pub use demo::demo_data;
pub use hardware::{HardwareArguments, public_key};
pub use model::{Model, adapter_in, latest_checkpoint};
pub use outcome::{compared, merge, trained};
pub use progress::Show;
pub use registry::registry;
pub use terminal::{charset, default_out, fail, say};
pub use time::time;
