#!/usr/bin/env python3
"""Writes glasshouse-core/tests/vectors/transcript.json: T, gpu_nonce, G, report_data and eat_nonce, computed here a
second time from the design alone, so that the Rust code is checked against something other than itself.

    python3 scripts/transcript_vectors.py > glasshouse-core/tests/vectors/transcript.json
"""
import hashlib, json, sys

def lp(b: bytes) -> bytes:
    return len(b).to_bytes(4, "big") + b

def optional(b):
    return b"\0" if b is None else b"\1" + lp(b)

SUITES = "DHKEM(X25519,HKDF-SHA256)/HKDF-SHA256/AES-256-GCM+PSK;Ed25519;SHA-384"

def vector(name, image, level, devices, timestamp, assurance, kind, container):
    f = lambda n, size: bytes((n + i) % 256 for i in range(size))
    fields = dict(challenge=f(1, 48), hpke_key=f(2, 32), event_key=f(3, 32), package_digest=f(4, 48),
                  manifest_digest=f(5, 48), runtime_measurement=f(6, 32))
    t = hashlib.sha384(
        b"gh/attest/1" + lp(fields["challenge"]) + lp(SUITES.encode()) + lp(kind.encode()) + lp(fields["hpke_key"])
        + lp(fields["event_key"]) + lp(fields["package_digest"]) + lp(fields["manifest_digest"]) + optional(image)
        + lp(container[1].encode()) + lp(container[0].encode()) + lp(fields["runtime_measurement"])
        + lp(b"glasshouse-anti-debug/1") + lp(level.encode()) + lp(b"ready") + lp(timestamp.to_bytes(8, "big"))
        + lp(assurance.encode())).digest()
    ordered = sorted(devices, key=lambda d: (d[1], d[2]))
    g = hashlib.sha384(b"gh/g/1" + lp(len(devices).to_bytes(8, "big"))
                       + b"".join(lp(k.encode()) + lp(r) + lp(c) for k, _, r, c in ordered)).digest()
    rd = hashlib.sha512(b"gh/rd/1" + t + g).digest()
    return dict(
        name=name, suites=SUITES, kind=kind, container_source=container[0], container_value=container[1],
        image_digest=image.hex() if image else None, anti_debug_level=level, timestamp=timestamp,
        minimum_assurance=assurance,
        devices=[dict(kind=k, serial=s.hex(), report=r.hex(), chain=c.hex()) for k, s, r, c in devices],
        **{k: v.hex() for k, v in fields.items()},
        t=t.hex(), gpu_nonce=hashlib.sha256(b"gh/gpu/1" + t).hexdigest(), g=g.hex(), report_data=rd.hex(),
        eat_nonce=hashlib.sha256(b"gh/eat/1" + rd).hexdigest())

vectors = [
    vector("no image, no devices", None, "basic", [], 1795417080000, "SelfReported", "software",
           ("boot-id", "host:7c9e6679-7425-40de-944b-e07fc1f90ae7")),
    vector("image, two GPUs and a switch out of order", bytes(range(32)), "strict",
           [("nvidia-switch", b"\x09", b"switch report", b"switch chain"),
            ("nvidia-gpu", b"\x02\x01", b"gpu report b", b"gpu chain b"),
            ("nvidia-gpu", b"\x02", b"gpu report a", b"gpu chain a")], 1, "CpuTeeGpuCc", "tdx",
           ("runpod-pod-id", "xyz123")),
]
json.dump(dict(schema="glasshouse/transcript-vectors/1", vectors=vectors), sys.stdout, indent=2)
print()
