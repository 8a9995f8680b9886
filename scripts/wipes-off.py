#!/usr/bin/env python3
"""Takes single wipes, locks and checks out that cargo-mutants does not (it replaces functions and
operators, not statements), one at a time, in a copy of HEAD, and looks whether the tests named beside it fail.

    python3 scripts/wipes-off.py [WORDS OF A NAME]     # WIPES_DIR: where the copy lies (/tmp/wipes-off)
    python3 scripts/wipes-off.py --after NAME          # goes on behind it
"""

import os
import pathlib
import subprocess
import sys

SRC = "glasshouse-core/src/"
LIB, LARGE, SMALL, SESSION, PACKAGE = ["--lib"], ["--test=large_blocks"], ["--test=small_blocks"], ["--test=session", "--test=refusals"], ["--lib", "--test=package"]
# Whole runs.
PROVIDER = "glasshouse-provider"
CANARY = [PROVIDER, "--test=canary"]
# Name, file, what is there, what is put in its place, where it must be seen.
OFF = [
    ("secret memory wiped when dropped", "secret/memory.rs", "        self.zeroize();\n", "", LIB),
    ("spare capacity of a vector that is kept", "secret/memory.rs", "bytes.spare_capacity_mut().zeroize();", "let _ = &mut bytes;", LIB),
    ("source of a key that is taken", "secret/key.rs", "        bytes.zeroize();\n", "", LIB),
    ("source of a buffer that is taken", "secret/buffer.rs", "                bytes.zeroize();\n", "                bytes.clear();\n", ["--test=canary"]),
    ("a key's wipe", "secret/key.rs", "        self.0.zeroize();\n", "        let _ = &self.0[..].as_ptr();\n", LIB),
    ("a buffer's wipe", "secret/buffer.rs", "        self.0.zeroize();\n", "        let _ = &self.0[..].as_ptr();\n", LIB),
    ("pages out of dumps", "secret/pages.rs", "    keep_out_of_dumps(data, usable);\n", "", LIB),
    ("pages zero in forks", "secret/pages.rs", "    wipe_in_forks(data, usable);\n", "", LIB),
    ("pages locked", "secret/pages.rs", "locked: lock(data, len) })", "locked: true })", LIB),
    ("guards around pages", "secret/pages.rs", "total, ProtFlags::empty(), MapFlags::PRIVATE) }.ok()?;\n        // SAFETY: `start` begins a mapping of `total >= 2 * GRANULE` bytes.\n        let data = unsafe", "total, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }.ok()?;\n        // SAFETY: as before.\n        let data = unsafe", LIB),
    ("hidden memory out of forks", "secret/memfd.rs", "Advice::LinuxDontFork", "Advice::Normal", LIB),
    ("a locked page kept back for keys", "secret/memory.rs", "        reserve_for_keys();\n", "", ["--test=unlocked"]),
    ("a region's wipe", "host_memory/zeroizer.rs", "|| region.target.wipe()));\n    outcome", "|| Ok::<(), ZeroizeError>(())));\n    outcome", LIB),
    ("a region read back", "host_memory/zeroizer.rs", "|| region.target.is_wiped()));", "|| Ok::<bool, ZeroizeError>(true)));", LIB),
    ("secrets that nobody handed over", "host_memory/zeroizer.rs", "if tally.held() > 0 {", "if false {", LIB),
    ("regions of a zeroizer that is dropped", "host_memory/zeroizer.rs", "            let _ = catch_unwind(AssertUnwindSafe(|| region.target.wipe()));\n", "            let _ = &region;\n", LIB),
    ("a freed block", "host_memory/zero_on_free.rs", "            wipe(block, layout.size());\n", "", ["--test=zero_on_free"]),
    ("a block that grew", "host_memory/zero_on_free.rs", "                self.dealloc(block, layout);\n", "                self.inner.dealloc(block, layout);\n", ["--test=zero_on_free"]),
    ("a large block that is freed", "host_memory/zero_on_free.rs", "            wipe(block, layout.size());\n", "            if !large_blocks::holds(block) {\n                wipe(block, layout.size());\n            }\n", LARGE),
    ("a large block that is not kept", "host_memory/zero_on_free.rs", "            wipe(block, layout.size());\n", "            if layout.size() <= 32 << 20 {\n                wipe(block, layout.size());\n            }\n", LARGE),
    ("what a large block lost", "host_memory/zero_on_free.rs", "unsafe { wipe(block.add(new_size), lost) };", "let _ = lost;", LARGE),
    ("large blocks out of dumps", "host_memory/reserved.rs", "if !keep_out_of_dumps(start, total) {", "if false {", LARGE),
    ("pages out of dumps that are opened again", "host_memory/reserved.rs", "closed.is_ok() && keep_out_of_dumps(at, bytes)", "closed.is_ok()", LARGE),
    ("large blocks locked", "host_memory/large_blocks.rs", "let lock = || self.budget.lock(&self.reserved, offset, bytes);", "let lock = || offset.min(bytes) < usize::MAX;", LARGE),
    ("locked when touched and not before", "host_memory/reserved.rs", "MlockFlags::ONFAULT", "MlockFlags::empty()", LARGE),
    ("half of the limit left to a package", "host_memory/large_blocks.rs", "LockBudget::part(&reserved, 2)", "LockBudget::part(&reserved, 1)", LARGE),
    ("free pages unlocked for blocks in use", "host_memory/large_blocks.rs", "                self.unlock(slot, state);\n                SLOTS.set_state", "                SLOTS.set_state", LARGE),
    ("a growing block stays locked", "host_memory/large_blocks.rs", "            true => more == 0 || self.lock(slot.offset.wrapping_add(before.open), more),", "            true => more == 0 || { self.unlock(slot, before); self.lock(slot.offset, open) },", LARGE),
    ("a growing block's new pages locked", "host_memory/large_blocks.rs", "            true => more == 0 || self.lock(slot.offset.wrapping_add(before.open), more),", "            true => true,", LARGE),
    ("unlocked large blocks counted", "host_memory/large_blocks.rs", "    COUNTS.changed((0, true), (layout.size(), locked));", "    let _ = locked;\n    COUNTS.changed((0, true), (layout.size(), true));", LARGE),
    ("large blocks without pages of their own counted", "host_memory/large_blocks.rs", "        COUNTS.ordinary.fetch_add(size as u64, Relaxed);", "        let _ = size;", LARGE),
    ("refused blocks not counted", "host_memory/zero_on_free.rs", "match (block.is_null(), layout.size() >= LARGE) {", "match (false, layout.size() >= LARGE) {", LARGE),
    ("a small block that is freed", "host_memory/zero_on_free.rs", "            wipe(block, layout.size());\n", "            if !small_blocks::holds(block) {\n                wipe(block, layout.size());\n            }\n", SMALL),
    ("a small block of zeros", "host_memory/zero_on_free.rs", "                unsafe { block.write_bytes(0, layout.size()) };\n", "", SMALL),
    ("small blocks in pages of our own", "host_memory/zero_on_free.rs", "        small_blocks::begin();\n", "", SMALL),
    ("errno left alone", "host_memory/small_blocks.rs", "        *place = before;\n", "        let _ = (before, place);\n", SMALL),
    ("small blocks locked", "host_memory/small_blocks.rs", "if !self.budget.lock(&self.reserved, offset, bytes) {", "if self.budget.left() == 0 {", SMALL),
    ("a part of the limit, and no more", "host_memory/lock_budget.rs", "        if !self.0.as_ref().is_none_or(allotted) {", "        if !self.0.as_ref().is_none_or(allotted) && bytes == 0 {", LARGE),
    ("what the kernel refuses to lock stays in the budget", "host_memory/lock_budget.rs", "        if !locked {\n            self.give_back(bytes);\n        }\n", "", SMALL),
    ("a quarter of the limit, and no more", "host_memory/small_blocks.rs", "LockBudget::part(&reserved, 4)", "LockBudget::part(&reserved, 1)", SMALL),
    ("unlocked pages of small blocks counted", "host_memory/small_blocks.rs", "            self.unlocked.fetch_add(bytes as u64, Relaxed);\n", "", SMALL),
    ("small blocks without pages of our own counted", "host_memory/small_blocks.rs", "        ORDINARY.fetch_add(size as u64, Relaxed);\n", "        let _ = size;\n", SMALL),
    ("a protected segment guards its blocks", "glasshouse-provider/src/segment/run.rs", "                ZeroOnFree::guard();\n", "", CANARY),
    ("a tensor's wipe", "traits/zeroizer.rs", "zeroize::Zeroize::zeroize(&mut **self);", "let _ = &mut **self;", LIB),
    ("the evidence's signature", "gate/session.rs", "        signed.verify(&message.event_key)?;\n", "", SESSION),
    ("the clocks at the answer", "gate/session.rs", "        check_clocks(pending.issued, now, self.config.challenge_ttl)?;\n", "        let _ = check_clocks;\n", SESSION),
    ("the release made durable", "gate/session.rs", "        self.store.commit(&committed)?;\n", "", SESSION),
    ("a record kept before it counts", "gate/session.rs", "|| Ok(store.keep(&session, record)?)", "|| { let _ = (&session, &store); Ok::<(), GateError>(()) }", SESSION),
    ("the launch secret's MAC", "gate/appraise.rs", "    check_mac(&launch.mac_transcript(&message.t), &message.mac, Code::LAUNCH_SECRET_WRONG)?;\n", "", SESSION),
    ("the keys' MAC", "gate/appraise.rs", "    check_mac(&keys, &message.keys_mac, Code::KEYS_SWAPPED)?;\n", "    let _ = keys;\n", SESSION),
    ("T", "gate/appraise.rs", "    expect(Code::COMPOSITE_HASH_MISMATCH, &t, &message.t)?;\n", "", SESSION),
    ("the claims", "gate/appraise.rs", "    check_claims(&message.claims, reference)?;\n", "", SESSION),
    ("the timestamp", "gate/appraise.rs", "    check_timestamp(message, now, max_age, config.max_skew)?;\n", "    let _ = (max_age, now, check_timestamp);\n", SESSION),
    ("the lease before the release is opened", "segment/session.rs", "        lease.check(0, now)?;\n", "        let _ = (&mut lease, now);\n", SESSION),
    ("the challenge's signature", "segment/session.rs", "let challenge = signed.verify(&self.config.gate_key)?;", "let challenge = signed.peek()?;", SESSION),
    ("a record's epoch", "channel/record.rs", "if record.epoch != self.epoch {", "if false {", LIB),
    ("a record's place", "channel/record.rs", "if record.seq > expected {", "if false {", LIB),
    ("an event's predecessor", "channel/chain.rs", "if header.previous != self.previous {", "if false {", ["--test=record", "--test=session"]),
    ("an event's body", "channel/chain.rs", "if sha384(body) != header.body {", "if false {", ["--test=record", "--test=session"]),
    ("an event after the end", "channel/chain.rs", "        if self.ended {\n            return Err(Refusal::new(Code::EVENT_AFTER", "        if false {\n            return Err(Refusal::new(Code::EVENT_AFTER", ["--test=record", "--test=session"]),
    ("store: a second owner kept out", "durable.rs", "match file.try_lock() {", "match Ok::<(), TryLockError>(()) {", LIB),
    ("store: one release for a session", "gate/memory_store.rs", "if self.releases.contains_key(session) {", "if false {", LIB),
    ("store: a nonce burns", "gate/memory_store.rs", "self.nonces.insert((session, nonce), true);", "self.nonces.insert((session, nonce), false);", SESSION),
    ("lease: the boot clock", "segment/lease.rs", "if age > Duration::from_millis(lease.ttl_millis) {", "if false {", LIB),
    ("lease: the wall clock", "segment/lease.rs", "if now.wall > lease.not_after {", "if false {", LIB),
    ("lease: a wall clock set back", "segment/lease.rs", "if now.wall.is_set_back_from(self.latest_wall) {", "if false {", LIB),
    ("package: its manifest", "package/open.rs", "if seen != expected.manifest {", "if false {", PACKAGE),
    ("package: its digest", "package/open.rs", "if seen != expected.package {", "if false {", PACKAGE),
    ("package: bytes after its end", "package/open.rs", "if fill(&mut input, &mut [0])? != 0 {", "if fill(&mut input, &mut [0])? > 1 {", PACKAGE),
    ("package: the last chunk's mark", "package/stream.rs", "u8::from(chunk == last)", "u8::from(chunk > last)", PACKAGE),
    ("package: a chunk's place", "package/stream.rs", "u32::try_from(chunk).ok()?.to_be_bytes()", "u32::try_from(chunk.min(0)).ok()?.to_be_bytes()", PACKAGE),
]


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    work = pathlib.Path(os.environ.get("WIPES_DIR", "/tmp/wipes-off"))
    tree = work / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    # With times of now: what a run before this one built of a file with something taken out must not look new.
    archive = subprocess.run(["git", "-C", root, "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-m", "-C", tree], input=archive, check=True)
    environment = dict(os.environ, CARGO_TARGET_DIR=str(work / "target"), CARGO_PROFILE_DEV_DEBUG="none", RUST_BACKTRACE="0")

    def passes(targets: list[str]) -> bool:
        where = [PROVIDER] if targets[:1] == [PROVIDER] else ["glasshouse-core", "--", "--skip", "overhead::", "--skip", "fit::"]
        command = ["cargo", "test", "--quiet", *targets[targets[:1] == [PROVIDER] :], "-p", *where]
        ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        if "could not compile" in ended.stderr:
            sys.exit(f"it does not compile:\n{ended.stderr}")
        return ended.returncode == 0

    wanted = [entry for entry in OFF if all(word in entry[0] for word in sys.argv[1:])]
    if sys.argv[1:2] == ["--after"]:
        wanted = OFF[[name for name, *_ in OFF].index(" ".join(sys.argv[2:])) + 1 :]
    path_of = lambda file: tree / (file if file.startswith("glasshouse-") else SRC + file)
    for name, file, old, *_ in wanted:
        if path_of(file).read_text().count(old) != 1:
            sys.exit(f"{name}: {file} has it {path_of(file).read_text().count(old)} times; mend this list")
    # Tests that fail anyway would see everything.
    for targets in {tuple(targets) for *_, targets in wanted}:
        if not passes(list(targets)):
            sys.exit(f"{' '.join(targets)} fails with nothing taken out; mend that first")
    unseen = []
    for name, file, old, new, targets in wanted:
        path = path_of(file)
        whole = path.read_text()
        path.write_text(whole.replace(old, new))
        seen = not passes(targets)
        path.write_text(whole)
        print("seen    " if seen else "NOT SEEN", name, flush=True)
        if not seen:
            unseen.append(name)
    print(f"{len(unseen)} not seen")
    return int(bool(unseen))


if __name__ == "__main__":
    sys.exit(main())
