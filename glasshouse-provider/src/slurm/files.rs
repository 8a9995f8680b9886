//! What a job writes into the shared folder.

use std::io::SeekFrom;
use std::path::Path;

use glasshouse_core::traits::LogChunk;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::local::AgentReport;
use crate::rest::log_line;

const MAX_READ: u64 = 4 << 20;
/// Longer than a report, and than what stands before it on a node that greets.
const MAX_REPORT: u64 = 4096;

/// The port out of the agent's report, once it is there whole.
pub(super) async fn port(path: &Path) -> Option<u16> {
    let mut text = String::new();
    tokio::fs::File::open(path).await.ok()?.take(MAX_REPORT).read_to_string(&mut text).await.ok()?;
    // A program may print before it is the agent.
    let report = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    report.filter_map(|line| serde_json::from_str(line).ok()).find_map(|report| match report {
        AgentReport::Listening(address) => Some(address.port()),
        AgentReport::Failed(_) => None,
    })
}

/// Whole lines from a byte on.
pub(super) async fn lines(path: &Path, from: u64) -> std::io::Result<LogChunk> {
    let mut file = tokio::fs::File::open(path).await?;
    // A log that is shorter than it was is another one.
    let from = if file.metadata().await?.len() < from { 0 } else { from };
    file.seek(SeekFrom::Start(from)).await?;
    let mut bytes = Vec::new();
    file.take(MAX_READ).read_to_end(&mut bytes).await?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end.saturating_add(1));
    // A line longer than one reading goes on in pieces.
    let whole = if whole == 0 && bytes.len() as u64 == MAX_READ { bytes.len() } else { whole };
    bytes.truncate(whole);
    let text = String::from_utf8_lossy(&bytes);
    Ok(LogChunk { lines: text.lines().map(log_line).collect(), next: from.saturating_add(whole as u64).to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn half_a_line_waits_for_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\ntwo\nhal").unwrap();
        let first = lines(file.path(), 0).await.unwrap();
        assert_eq!(first.lines, ["one", "two"]);
        std::fs::write(file.path(), "one\ntwo\nhalf\n").unwrap();
        let second = lines(file.path(), first.next.parse().unwrap()).await.unwrap();
        assert_eq!(second.lines, ["half"]);
        std::fs::write(file.path(), "new\n").unwrap();
        assert_eq!(lines(file.path(), 13).await.unwrap().lines, ["new"]);
    }

    #[tokio::test]
    async fn a_report_is_found_among_other_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "module loaded\n{\"listening\":\"0.0.0.0:4321\"}").unwrap();
        assert_eq!(port(file.path()).await, None);
        std::fs::write(file.path(), "module loaded\n{\"listening\":\"0.0.0.0:4321\"}\n").unwrap();
        assert_eq!(port(file.path()).await, Some(4321));
    }
}
