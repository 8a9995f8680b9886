//! Which container this is: read from the kernel first, from a provider's environment only when told to.
//!
//! `/proc/self/cgroup` (cgroups(7)) names the container's cgroup unless a cgroup namespace hides it (`0::/`); then the
//! files that runtimes bind-mount from the container's own folder (`/etc/hostname`, …) still name it in
//! `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Where neither does, this is `host:<boot id>` and says so.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs;

use glasshouse_core::claims::ContainerId;
use glasshouse_core::traits::AttestError;

/// Where the container id is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerSource {
    /// The kernel: cgroup, then mounts, then the boot id.
    #[default]
    Kernel,
    /// `RUNPOD_POD_ID`, as RunPod sets it.
    RunpodPod,
    /// `CONTAINER_ID`, as Vast.ai sets it.
    VastContainer,
    /// `SLURM_JOB_ID`, as Slurm sets it.
    SlurmJob,
}

impl ContainerSource {
    /// The source of this name in a [`ContainerId`]; every name that is not a provider's is the kernel's.
    pub fn named(source: &str) -> Self {
        [Self::RunpodPod, Self::VastContainer, Self::SlurmJob]
            .into_iter()
            .find(|known| known.environment().is_some_and(|(name, _)| name == source))
            .unwrap_or_default()
    }

    /// The source's name and the variable that it reads.
    const fn environment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Kernel => None,
            Self::RunpodPod => Some(("runpod-pod-id", "RUNPOD_POD_ID")),
            Self::VastContainer => Some(("vast-container-id", "CONTAINER_ID")),
            Self::SlurmJob => Some(("slurm-job", "SLURM_JOB_ID")),
        }
    }
}

/// Reads the container id now.
///
/// # Errors
/// [`AttestError::Unreadable`] when `/proc` is not there, or a provider's variable is not set or not an identifier.
pub fn container_id(source: ContainerSource) -> Result<ContainerId, AttestError> {
    let unreadable = |why: String| AttestError::Unreadable { what: "the container id", why };
    if let Some((name, variable)) = source.environment() {
        let value = std::env::var(variable).map_err(|_| unreadable(format!("{variable} is not set")))?;
        if !is_identifier(&value) {
            return Err(unreadable(format!(
                "{variable} is not 1 to 128 letters, digits, dots, hyphens or underscores"
            )));
        }
        return Ok(ContainerId { source: name.to_owned(), value });
    }
    // Host paths may hold any bytes; only the ASCII parts matter.
    let read = |path: &str| {
        fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| unreadable(format!("{path}: {error}")))
    };
    if let Some(id) = parse(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?) {
        return Ok(id);
    }
    let boot = read("/proc/sys/kernel/random/boot_id")?;
    let boot = boot.trim();
    if !is_identifier(boot) {
        return Err(unreadable("/proc/sys/kernel/random/boot_id is not an identifier".to_owned()));
    }
    Ok(ContainerId { source: "boot-id".to_owned(), value: format!("host:{boot}") })
}

/// The container id in the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`, or none. Total: any text is fine.
///
/// The unified hierarchy (`0::`) is asked first, then the others in their order; in one path the innermost container
/// counts, since that is the one this process runs in.
pub fn parse(cgroup: &str, mountinfo: &str) -> Option<ContainerId> {
    let named = |source: &str| {
        let source = source.to_owned();
        move |id: &str| ContainerId { source, value: id.to_owned() }
    };
    from_cgroup(cgroup)
        .map(named("cgroup"))
        .or_else(|| from_mountinfo(mountinfo, &["containers", "overlay-containers"]).map(named("mountinfo")))
        .or_else(|| from_mountinfo(mountinfo, &["sandboxes"]).map(named("mountinfo-sandbox")))
}

fn from_cgroup(text: &str) -> Option<&str> {
    let paths = || text.lines().filter_map(cgroup_path);
    let unified = paths().filter(|(unified, _)| *unified);
    let others = paths().filter(|(unified, _)| !*unified);
    unified.chain(others).find_map(|(_, path)| innermost(path))
}

/// `hierarchy-ID:controller-list:cgroup-path`, where the path may hold colons itself; and whether it is the unified one.
fn cgroup_path(line: &str) -> Option<(bool, &str)> {
    let mut fields = line.splitn(3, ':');
    let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    Some((hierarchy == "0" && controllers.is_empty(), path))
}

fn innermost(path: &str) -> Option<&str> {
    // Above the root of the cgroup namespace: the path is not this container's.
    if path.split('/').any(|segment| segment == "..") {
        return None;
    }
    path.rsplit('/').find_map(id_of_segment)
}

/// `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `kubepods-….slice:cri-containerd:ID`, and their like. A monitor's
/// own cgroup (`libpod-conmon-ID.scope`) is not the container.
fn id_of_segment(segment: &str) -> Option<&str> {
    let segment = segment.strip_suffix(".scope").unwrap_or(segment);
    let (prefix, id) = match segment.rsplit_once([':', '-']) {
        Some((prefix, id)) => (prefix.rsplit(':').next().unwrap_or_default(), id),
        None => ("", segment),
    };
    let known = ["", "docker", "cri-containerd", "containerd", "nerdctl", "crio", "libpod", "podman"];
    (known.contains(&prefix) && is_container_hash(id)).then_some(id)
}

/// The hash after one of `folders` in the host path of a file that runtimes mount into every container.
fn from_mountinfo<'a>(text: &'a str, folders: &[&str]) -> Option<&'a str> {
    text.lines().find_map(|line| {
        // mount-ID parent-ID major:minor root mount-point …
        let mut fields = line.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        if !["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"].contains(&mount_point) {
            return None;
        }
        let segments = || root.split('/');
        segments()
            .zip(segments().skip(1))
            .find_map(|(folder, id)| (folders.contains(&folder) && is_container_hash(id)).then_some(id))
    })
}

fn is_container_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_identifier(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
