//! What the examples share: the registry of this executable, progress on a terminal, and small words of command lines.

mod progress;
mod registry;
mod terminal;
mod time;

pub use progress::Show;
pub use registry::registry;
pub use terminal::{charset, default_out, fail, say};
pub use time::time;
