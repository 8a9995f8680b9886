//! The container's id out of the kernel's text.

use glasshouse_attest::software::parse_container_id;

/// The text before the first NUL is `/proc/self/cgroup`, the rest `/proc/self/mountinfo`. Whatever is found is 64 hex
/// digits that stand there, and is found again.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (cgroup, mountinfo) = text.split_once('\0').unwrap_or((&text, ""));
    let Some(id) = parse_container_id(cgroup, mountinfo) else { return };
    assert!(id.value.len() == 64 && id.value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let from = match id.source.as_str() {
        "cgroup" => cgroup,
        "mountinfo" | "mountinfo-sandbox" => {
            assert_eq!(parse_container_id(cgroup, ""), None, "the cgroup counts first");
            mountinfo
        }
        other => panic!("source {other}"),
    };
    assert!(from.contains(&id.value));
    assert_eq!(parse_container_id(cgroup, mountinfo), Some(id));
}
