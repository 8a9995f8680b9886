use super::*;
use proptest::prelude::*;

const ID: &str = "3f1a9c0e5b7d2468ace013579bdf02468ace13579bdf02468ace13579bdf0246";
const OUTER: &str = "00000c0e5b7d2468ace013579bdf02468ace13579bdf02468ace13579bdf0246";

fn found(cgroup: &str, mountinfo: &str) -> Option<(String, String)> {
    parse(cgroup, mountinfo).map(|id| (id.source, id.value))
}

fn by_cgroup(path: &str) -> bool {
    found(&format!("0::{path}\n"), "") == Some(("cgroup".into(), ID.into()))
}

#[test]
fn cgroup_paths_of_every_runtime() {
    for path in [
        format!("/docker/{ID}"),
        format!("/system.slice/docker-{ID}.scope"),
        format!("/system.slice/containerd.service/kubepods-burstable-pod1_2.slice:cri-containerd:{ID}"),
        format!("/kubepods/besteffort/pod0b1c2d3e-aaaa-bbbb-cccc-0123456789ab/{ID}"),
        format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
        format!("/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope"),
        format!("/machine.slice/libpod-{ID}.scope/container"),
        format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
        format!("/default/{ID}"),
        format!("/docker/{OUTER}/docker/{ID}"),
        format!("/docker/{ID}/init.scope"),
    ] {
        assert!(by_cgroup(&path), "{path}");
    }
}

#[test]
fn cgroup_paths_that_name_no_container() {
    let upper = ID.to_uppercase();
    for path in [
        "/".to_owned(),
        "/user.slice/user-0.slice/session-1.scope".to_owned(),
        format!("/system.slice/libpod-conmon-{ID}.scope"),
        format!("/system.slice/crio-conmon-{ID}.scope"),
        format!("/docker/{}", &ID[1..]),
        format!("/docker/{ID}0"),
        format!("/docker/{upper}"),
        format!("/../{ID}"),
        format!("/evil-{ID}.scope"),
        "/process_api/1141ab45ec3675f7e4ef017ffbd4325d".to_owned(),
    ] {
        assert_eq!(found(&format!("0::{path}\n"), ""), None, "{path}");
    }
}

#[test]
fn hierarchies_in_order() {
    let v1 = format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
    assert_eq!(found(&v1, "").unwrap().1, ID);
    let both = format!("12:memory:/docker/{OUTER}\n0::/docker/{ID}\n");
    assert_eq!(found(&both, "").unwrap().1, ID, "the unified hierarchy counts");
    assert_eq!(found("0::", ""), None);
    assert_eq!(found("::::", ""), None);
}

#[test]
fn mounts_where_a_cgroup_namespace_hides_the_path() {
    let mount = |root: &str, at: &str| format!("1014 1003 254:1 {root} {at} rw,relatime - ext4 /dev/vda1 rw\n");
    let docker = mount(&format!("/var/lib/docker/containers/{ID}/hostname"), "/etc/hostname");
    assert_eq!(found("0::/\n", &docker), Some(("mountinfo".into(), ID.into())));
    let podman = mount(&format!("/containers/storage/overlay-containers/{ID}/userdata/hosts"), "/etc/hosts");
    assert_eq!(found("0::/\n", &podman), Some(("mountinfo".into(), ID.into())));
    let pod = mount(&format!("/io.containerd.grpc.v1.cri/sandboxes/{ID}/resolv.conf"), "/etc/resolv.conf");
    assert_eq!(found("0::/\n", &pod), Some(("mountinfo-sandbox".into(), ID.into())), "a pod is not a container");
    let elsewhere = mount(&format!("/var/lib/docker/containers/{ID}/hostname"), "/home/me/hostname");
    let volume = mount(&format!("/var/lib/docker/volumes/{ID}/_data"), "/etc/hosts");
    for other in [elsewhere.as_str(), volume.as_str(), "36 35 98:0 /", ""] {
        assert_eq!(found("0::/\n", other), None, "{other}");
    }
    let cgroup = format!("0::/docker/{OUTER}\n");
    assert_eq!(found(&cgroup, &docker).unwrap().1, OUTER, "the cgroup counts first");
}

#[test]
fn this_machine_has_an_id() {
    let here = container_id(ContainerSource::Kernel).unwrap();
    assert!(["cgroup", "mountinfo", "mountinfo-sandbox", "boot-id"].contains(&here.source.as_str()), "{here}");
    assert_eq!(here.source == "boot-id", here.value.starts_with("host:"), "{here}");
    assert_eq!(here, container_id(ContainerSource::Kernel).unwrap());
}

#[test]
fn a_provider_source_is_used_only_when_told_and_never_guessed() {
    // Cargo sets neither; setting one here would race with the other tests of this process.
    let missing = container_id(ContainerSource::RunpodPod).unwrap_err();
    assert!(missing.to_string().contains("RUNPOD_POD_ID is not set"), "{missing}");
    assert_eq!(ContainerSource::named("slurm-job"), ContainerSource::SlurmJob);
    assert_eq!(ContainerSource::named("cgroup"), ContainerSource::Kernel);
    assert!(
        is_identifier("abc-1_2.x") && !is_identifier("") && !is_identifier("a b") && !is_identifier(&"a".repeat(129))
    );
}

proptest! {
    #[test]
    fn total(cgroup: String, mountinfo: String) {
        if let Some(id) = parse(&cgroup, &mountinfo) {
            prop_assert!(is_container_hash(&id.value));
        }
    }

    #[test]
    fn total_on_lines_like_the_kernels(
        lines in proptest::collection::vec("[0-9]{0,2}:[a-z,=]{0,8}:(/[a-z.:-]{0,12}([0-9a-f]{64})?(\\.scope)?){0,4}", 0..6),
        mounts in proptest::collection::vec("([0-9]{1,3} ){2}[0-9]:[0-9] (/(containers|sandboxes|[0-9a-f]{64})){0,4} /etc/hosts", 0..4),
    ) {
        let (cgroup, mountinfo) = (lines.join("\n"), mounts.join("\n"));
        match parse(&cgroup, &mountinfo) {
            Some(id) if id.source == "cgroup" => prop_assert!(cgroup.contains(&id.value)),
            Some(id) => prop_assert!(mountinfo.contains(&id.value)),
            None => {}
        }
    }
}
