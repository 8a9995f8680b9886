//! Words to a terminal.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use glasshouse_core::overhead::Charset;

/// Prints to standard output. What cannot be printed (a closed pipe) stops nothing.
pub fn say(text: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints one sentence to standard error. What cannot be printed stops nothing.
pub fn warn(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "warning: {text}");
}

/// Prints one sentence to standard error and gives exit status 1.
pub fn fail(program: &str, error: impl fmt::Display) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{program}: {error}");
    ExitCode::FAILURE
}

/// Prints one sentence about the command line to standard error and gives exit status 2.
pub fn misused(program: &str, why: impl fmt::Display) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{program}: {why}");
    ExitCode::from(2)
}

/// `glasshouse-out/` and the time, UTC, without characters that need quoting.
pub fn default_out() -> PathBuf {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    PathBuf::from("glasshouse-out").join(time.replace(':', ""))
}

/// Block elements on terminals that take UTF-8, ASCII elsewhere.
pub fn charset() -> Charset {
    let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .is_some_and(|value| value.to_ascii_lowercase().replace('-', "").contains("utf8"));
    if utf8 || !io::stdout().is_terminal() { Charset::Unicode } else { Charset::Ascii }
}
