"""hsmint audit: copies of the log, read without a daemon; and the daemon's own log."""

import base64
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time

import pytest

import auditlog
from auditlog import EcdsaKey, Ed25519Key, Log, WitnessKey
from conftest import SOURCE, not_sanitized, program, wait_for

OWNER = {"owner": "user:1000", "uid": 1000, "exe": "/usr/bin/app", "unit": "app.service"}


def hsmint(*words, status=0, stdin=None, env=None):
    environment = {"PATH": os.environ["PATH"], "HSMINT_SOCKET": "/nonexistent/socket", **(env or {})}
    r = subprocess.run([program("hsmint"), *map(str, words)], env=environment, input=stdin, capture_output=True, timeout=60)
    assert r.returncode == status, (r.returncode, r.stdout[-4000:], r.stderr[-4000:])
    return (r.stdout if status in (0, 1) and r.stdout else r.stderr).decode()


def verdict(path, *words, status=0):
    v = json.loads(hsmint("audit", "verify", path, "--json", *words, status=status))
    assert v["verdict"] == ("faults" if status else "holds") and bool(v["faults"]) == bool(status), v
    return v


def lease(log, n, ttl=3600, life=3000, role="my-app", actor=OWNER, max_ttl=7200, dead=True, **mint):
    """A key's whole life: mint, release, revoke, dead, with the two calls."""
    id, begin = f"lease{n:04}", log.ms
    log.call(f"c{n}a", lease=id, role=role, org="default", actor=actor)
    log.outcome(f"c{n}a", lease=id, role=role, org="default")
    at = {"actor": actor, "org": "default", "role": role, "lease": id}
    own = {"account": f"hsmint-{n}", "account_id": f"sa_{n}", "key_id": f"key_{n}", "key_hmac": "00" * 32}
    expires = auditlog.time_text(log.ms + 1000 + ttl * 1000)
    minted = log.ms + 1000
    log.add("mint", **at, **own, ttl=ttl, max_ttl=max_ttl, expires=expires, bound=False, reuse=False, **mint)
    log.add("release", **at)
    if dead:
        log.add("revoke", **at, reason="end", at_ms=minted + life * 1000 - 1000)
        log.call(f"c{n}b", "DELETE", f"/v1/organization/projects/p/service_accounts/sa_{n}", "", lease=id, role=role, org="default")
        log.outcome(f"c{n}b", lease=id, role=role, org="default")
        log.add("dead", org="default", role=role, lease=id, at_ms=minted + life * 1000)
        log.ms = max(log.ms, begin)
    return id


def a_log(records=40):
    log = Log()
    n = 0
    while len(log.lines) + 8 <= records:
        lease(log, n)
        n += 1
    while len(log.lines) < records:
        log.add("policy", actor=OWNER, name="p", action="set")
    return log


@pytest.fixture(params=["lines", "tiles"])
def write(request, tmp_path):
    """write(log, checkpoint=None): the copy's path."""

    def one(log, checkpoint=None):
        if request.param == "lines":
            return log.write_lines(tmp_path / "log.jsonl", checkpoint)
        (tmp_path / "log").mkdir(exist_ok=True)
        return log.write_tiles(tmp_path / "log", checkpoint)

    one.tiles = request.param == "tiles"
    return one


# ---- what holds ----


@pytest.mark.parametrize("records", [2, 255, 256, 257, 600])
def test_a_log_by_another_writer_holds(write, records):
    log = a_log(records)
    path = write(log)
    v = verdict(path)
    assert (v["origin"], v["size"], v["records"], v["keys_given"]) == (log.origin, records, records, False)
    assert base64.b64decode(v["root"]) == auditlog.root(log.leaves)
    v = verdict(path, "--key", log.keys[0].vkey, "--key", log.keys[1].vkey)
    assert v["keys_given"] and v["findings"] == []
    text = hsmint("audit", "verify", path)
    assert text.endswith("The log holds.\n") and "No key was given" in text


def all_kinds():
    """Of the program's table, but those with members that have to be there."""
    kinds = re.findall(r'\[RECORD_[A-Z_]+\] = "([a-z-]+)"', (SOURCE / "module/audit/record.c").read_text())
    assert len(kinds) > 25
    return [k for k in kinds if k not in ("keys", "call", "outcome")]


def test_each_kind_is_known(write):
    log = Log()
    for kind in all_kinds():
        log.add(kind)
    verdict(write(log))
    log.add("nonsense")
    names(verdict(write(log), status=1), "format", len(log.lines))


def test_an_open_call_is_no_fault(write):
    log = a_log()
    seq = log.call("open", actor=OWNER)
    v = verdict(write(log))
    assert v["open_calls"] == 1 and [(f["what"], f["seq"]) for f in v["findings"]] == [("open", seq)]


def test_keys_from_a_file(write, tmp_path):
    log = a_log()
    keys = tmp_path / "keys"
    keys.write_text("".join(k.vkey + "\n" for k in log.keys))
    assert verdict(write(log), "--key", keys)["keys_given"]
    keys.write_text("nonsense\n")
    assert "line 1" in hsmint("audit", "verify", write(log), "--key", keys, status=1)
    assert "neither a key nor a file" in hsmint("audit", "verify", write(log), "--key", tmp_path / "none", status=4)


def test_nothing_there(tmp_path):
    assert "no log at" in hsmint("audit", "verify", tmp_path / "none", status=4)
    (tmp_path / "empty").mkdir()
    assert "has no checkpoint" in hsmint("audit", "verify", tmp_path / "empty", status=4)
    hsmint("audit", "verify", status=2)


# ---- what does not: each verdict names the record ----


def names(v, what, seq):
    found = [(f["what"], f.get("seq")) for f in v["findings"]]
    assert (what, seq) in found, found


def tampered(write, change):
    """The path of a copy whose records alone were changed."""
    log = a_log()
    checkpoint, path = log.checkpoint(), write(log)
    change(log.lines)
    if write.tiles:
        (path / auditlog.tile_name("entries", 0, 40)).write_bytes(auditlog.entries(log.lines))
    else:
        write(log, checkpoint)
    return path


def test_a_flipped_byte(write):
    for at in (1, 17, 39, 40):

        def flip(lines):
            lines[at - 1] = lines[at - 1].replace(b'"sync":true', b'"sync":null')

        path = tampered(write, flip)
        v = verdict(path, status=1)
        if at < 40 or write.tiles:
            names(v, "changed", at)
        else:  # the last line of all: no other says what it was
            names(v, "root", 40)
        assert f"seq {at}" in hsmint("audit", "verify", path, status=1)


def test_dropped_doubled_swapped_inserted(write):
    def changed(change):
        return verdict(tampered(write, change), status=1)

    names(changed(lambda x: x.pop(8)), "missing", 9)
    names(changed(lambda x: x.insert(8, x[8])), "inserted", 9)
    names(changed(lambda x: x.insert(8, x.pop(9))), "missing", 9)

    def insert(lines):
        record = {**json.loads(lines[8]), "kind": "policy", "name": "mine"}
        lines.insert(8, json.dumps(record, separators=(",", ":")).encode())

    names(changed(insert), "inserted", 9)


def test_a_cut_tail(write):
    def cut(lines):
        del lines[35:]

    names(verdict(tampered(write, cut), status=1), "cut", 36)


def test_cut_tiles(tmp_path):
    log = a_log(600)
    for name, cut, what, seq in (
        ("tile/entries/001", 100, "cut", 512),
        ("tile/entries/001", None, "cut", 257),
        ("tile/entries/002.p/88", 3, "cut", 600),
        ("tile/0/001", 32, "tile", 257),
        ("tile/0/000", None, "tile", 1),
        ("tile/1/000.p/2", 1, "tile", 1),
    ):
        log.write_tiles(tmp_path)
        file = tmp_path / name
        data = file.read_bytes()
        if cut is None:
            file.unlink()
        else:
            file.write_bytes(data[:-cut])
        names(verdict(tmp_path, status=1), what, seq)
        assert name in hsmint("audit", "verify", tmp_path, status=1)
        file.write_bytes(data)


def test_checkpoints_of_others(write):
    log = a_log()
    keys = ("--key", log.keys[0].vkey)

    def bad(checkpoint, *words):
        v = verdict(write(log, checkpoint), *words, status=1)
        return next(f for f in v["findings"] if f["what"] != "open")

    assert "no signature of a known key" in bad(log.checkpoint(keys=[EcdsaKey(log.origin)]), *keys)["text"]
    assert "no signature of a known key" in bad(log.checkpoint(keys=[EcdsaKey("other")], origin="other"), *keys)["text"]
    found = bad(log.checkpoint(size=39), *keys)
    assert (found["what"], found["seq"]) == (("cut", 1) if write.tiles else ("inserted", 40))
    broken = log.checkpoint(keys=log.keys[:1])
    position = broken.rindex(" ") + 30
    broken = broken[:position] + ("A" if broken[position] != "A" else "B") + broken[position + 1 :]
    assert bad(broken, *keys)["what"] == "checkpoint"
    assert bad("", *keys)["what"] == "checkpoint"


def test_an_earlier_checkpoint(write, tmp_path):
    log = a_log(30)
    since = tmp_path / "since"
    since.write_text(log.checkpoint())
    while len(log.lines) < 60:
        log.add("policy", name="p")
    verdict(write(log), "--since", since)
    forked = a_log(60)
    forked.keys = log.keys
    v = verdict(write(forked), "--since", since, "--key", log.keys[0].vkey, status=1)
    names(v, "checkpoint", 30)
    del log.lines[20:]
    v = verdict(write(log), "--since", since, status=1)
    assert any("the earlier checkpoint had 30 records" in f["text"] for f in v["findings"])
    assert "--since" in hsmint("audit", "verify", write(log), "--since", "/dev/null", status=1)


def test_an_outcome_without_intent(write):
    log = a_log()
    seq = log.outcome("never")
    names(verdict(write(log), status=1), "orphan", seq)


def test_a_signature_that_does_not_fit(write):
    log = a_log()
    seq = log.call("forged")
    log.outcome("forged")
    record = json.loads(log.lines[seq - 1])
    record["method"] = "DELETE"
    log.lines[seq - 1] = json.dumps(record, separators=(",", ":")).encode()
    outcome = json.loads(log.lines[seq])
    outcome["prev"] = auditlog.b64(auditlog.leaf_hash(log.lines[seq - 1]))
    log.lines[seq] = json.dumps(outcome, separators=(",", ":")).encode()
    v = verdict(write(log), status=1)  # the daemon lies, and signs that
    assert [(f["what"], f["seq"]) for f in v["findings"]] == [("signature", seq)]


def test_garbage(tmp_path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"x" + os.urandom(4 << 20).replace(b"\n\n", b"xx"))
    v = verdict(garbage, status=1)
    assert len(v["findings"]) == 1000 and v["omitted"] > 0
    garbage.write_bytes(b"x" * (4 << 20))
    assert [f["what"] for f in verdict(garbage, status=1)["findings"]] == ["format", "checkpoint"]
    garbage.write_bytes(b"")
    verdict(garbage, status=1)


def test_names_from_a_log_are_no_terminal_codes(write):
    log = a_log()
    log.outcome("\x1b[31m\u202e")
    text = hsmint("audit", "verify", write(log), status=1)
    assert "\x1b" not in text and "\\x1b" in text


def test_a_long_log_in_little_memory(record_property):
    """The small version of what tests/run --full does with a gigabyte."""
    not_sanitized("a sanitizer's memory is not ours")
    bench = program("tests", "bench", "bench_audit")
    r = subprocess.run([bench, "17000", program("hsmint")], capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, (r.stdout, r.stderr)
    assert r.stderr.count("hsmint: 16384") == 2  # progress
    record_property("measured", r.stdout)


# ---- proofs ----


def test_the_proof_of_a_record(tmp_path):
    log = a_log(600)
    keys = ("--key", log.keys[0].vkey)
    for seq in (1, 256, 257, 600):
        path = tmp_path / "one.tlog-proof"
        path.write_text(log.proof(seq))
        v = json.loads(hsmint("audit", "verify", path, "--json", *keys))
        assert (v["verdict"], v["seq"], v["size"], v["record"]["seq"]) == ("holds", seq, 600, seq)
    assert "The proof holds" in hsmint("audit", "verify", path, *keys)
    assert "--key" in hsmint("audit", "verify", path, status=2)
    good = log.proof(300)
    for bad in (
        good.replace("index 299", "index 298"),
        good.replace("index 299", "index 0299"),
        good.replace("\n\nhsmint/test\n600", "\n\nhsmint/test\n601"),
        good[: len(good) // 2],
        good.replace(log.proof(300).splitlines()[5], auditlog.b64(bytes(32))),
        "\n".join(x for x in good.split("\n") if not x.startswith("extra")),
    ):
        path.write_text(bad)
        v = json.loads(hsmint("audit", "verify", path, "--json", *keys, status=1))
        assert v["verdict"] == "faults" and v["text"], v
    path.write_text(good)
    assert hsmint("audit", "verify", path, "--key", EcdsaKey(log.origin).vkey, status=1)


def test_witnesses(write):
    log = a_log()
    witness, stranger = WitnessKey("witness.example/w1"), WitnessKey("witness.example/w2")
    keys = ("--key", log.keys[0].vkey, "--key", witness.vkey)
    path = write(log, log.checkpoint(keys=[*log.keys, witness]))
    assert verdict(path, *keys)["keys_given"]
    v = verdict(path, *keys, "--key", stranger.vkey, status=1)
    assert "witness witness.example/w2 has not signed it" in v["findings"][0]["text"]
    # One that this program does not know (ML-DSA) is let pass.
    long = "\u2014 witness.example/pq " + auditlog.b64(b"\1\2\3\4" + bytes(2428)) + "\n"
    verdict(write(log, log.checkpoint(keys=[*log.keys, witness]) + long), *keys)


# ---- reading a copy ----


def test_show_and_search_a_copy(write):
    log = a_log(100)
    path = write(log)
    raw = hsmint("audit", "show", 7, "--copy", path, "--json")
    assert raw.encode() == log.lines[6] + b"\n"
    assert len(hsmint("audit", "show", "--copy", path).splitlines()) == 20
    last = hsmint("audit", "show", "--copy", path, "--limit", 3, "--json").encode().splitlines()
    assert last == log.lines[-3:]
    assert "ends with record 100" in hsmint("audit", "show", 102, "--copy", path, status=4)
    assert "no record 101 yet" in hsmint("audit", "show", 101, "--copy", path, status=4)
    found = hsmint("audit", "search", "--copy", path, "--kind", "mint", "--json").encode().splitlines()
    assert found == [x for x in log.lines if b'"kind":"mint"' in x] and len(found) == 12

    def seqs(*words):
        return [json.loads(x)["seq"] for x in hsmint("audit", "search", "--copy", path, "--json", *words).splitlines()]

    def expect(test):
        return [r["seq"] for r in map(json.loads, log.lines) if test(r)]

    assert seqs("--lease", "lease0003") == expect(lambda r: r.get("lease") == "lease0003") != []
    assert seqs("--caller", "hsmintd") == expect(lambda r: r["actor"]["owner"] == "hsmintd")
    assert seqs("--request", "req_c3a") == expect(lambda r: r.get("service_request_id") == "req_c3a") != []
    assert seqs("--role", "my-app", "--kind", "dead") == expect(lambda r: r["kind"] == "dead")
    at = json.loads(log.lines[50])["time"]
    assert seqs("--from", at) == expect(lambda r: r["time"] >= at)
    assert seqs("--to", at) == expect(lambda r: r["time"] < at)
    assert seqs("--from", "2099-01-01") == [] and seqs("--from", "1d") == []
    assert "write 2026-11-21" in hsmint("audit", "search", "--copy", path, "--from", "yesterday", status=2)
    assert "no record is of this kind" in hsmint("audit", "search", "--copy", path, "--kind", "x", status=2)


def test_the_second_reader_can_tell(tmp_path):
    """The independent verifier, which other tests rely on, sees a change."""
    log = a_log(300)
    vkeys = [k.vkey for k in log.keys]
    log.write_tiles(tmp_path)
    assert auditlog.verify(tmp_path, vkeys) == (log.origin, log.lines)
    assert auditlog.verify_proof(log.proof(299).encode(), vkeys) == log.lines[298]
    tile = tmp_path / "tile/0/001.p/44"
    tile.write_bytes(bytes(len(tile.read_bytes())))
    with pytest.raises(auditlog.Broken):
        auditlog.verify(tmp_path, vkeys)
    with pytest.raises(auditlog.Broken):
        auditlog.verify(tmp_path, [Ed25519Key(log.origin).vkey])


# ---- a copy into other forms ----


def test_a_copy_into_tiles_and_lines(tmp_path):
    log = a_log(300)
    vkeys = [k.vkey for k in log.keys]
    first = log.write_lines(tmp_path / "first.jsonl")
    directory = tmp_path / "tiles"
    hsmint("audit", "export", directory, "--copy", first)
    assert auditlog.verify(directory, vkeys) == (log.origin, log.lines)
    verdict(directory, "--key", vkeys[0])
    while len(log.lines) < 700:
        log.add("policy", name="p")
    log.write_lines(first)
    assert "400 records written" in hsmint("audit", "export", directory, "--copy", first)  # goes on
    assert auditlog.verify(directory, vkeys) == (log.origin, log.lines)
    verdict(directory, "--since", directory / "checkpoints/300")
    back = tmp_path / "back.jsonl"
    hsmint("audit", "export", "--jsonl", back, "--copy", directory)
    assert back.read_bytes() == first.read_bytes()
    assert "is there already" in hsmint("audit", "export", "--jsonl", back, "--copy", directory, status=1)
    assert hsmint("audit", "export", "--jsonl", "-", "--copy", directory).encode() == first.read_bytes()
    hsmint("audit", "export", "--copy", first, status=2)
    hsmint("audit", "export", directory, "--ocsf", "-", "--copy", first, status=2)
    hsmint("audit", "export", directory, "--kind", "mint", "--copy", first, status=2)
    # A history that was rewritten: the checkpoint that was kept tells.
    (directory / "checkpoints/300").write_text(a_log(300).checkpoint(keys=log.keys))
    names(verdict(directory, status=1), "checkpoint", 300)
    (directory / "checkpoints/300").unlink()
    (directory / "checkpoints/800").write_text(log.checkpoint())
    names(verdict(directory, status=1), "cut", 701)


def test_records_that_do_not_fit_are_not_exported(tmp_path):
    log = a_log()
    checkpoint = log.checkpoint()
    log.lines[4] = log.lines[4].replace(b'"sync":true', b'"sync":null')
    path = log.write_lines(tmp_path / "log", checkpoint)
    out = tmp_path / "out.jsonl"
    assert "not those that the checkpoint signs" in hsmint("audit", "export", "--jsonl", out, "--copy", path, status=1)
    assert not out.exists()
    assert "checkpoint is not of these records" in hsmint("audit", "export", tmp_path / "dir", "--copy", path, status=1)
    assert not (tmp_path / "dir/checkpoint").exists()


def test_prove_from_a_copy(tmp_path):
    log = a_log(600)
    vkeys = [k.vkey for k in log.keys]
    log.write_tiles(tmp_path)
    for seq in (1, 2, 255, 256, 257, 512, 513, 600):
        proof = hsmint("audit", "prove", seq, "--copy", tmp_path)
        head, _, checkpoint = proof.partition("\n\n")
        assert head == log.proof(seq).partition("\n\n")[0] and checkpoint == (tmp_path / "checkpoint").read_text()
        assert auditlog.verify_proof(proof.encode(), vkeys) == log.lines[seq - 1]
    assert "not there" in hsmint("audit", "prove", 601, "--copy", tmp_path, status=4)
    hsmint("audit", "prove", "x", "--copy", tmp_path, status=2)
    lines = log.write_lines(tmp_path / "lines")
    assert "has no tiles" in hsmint("audit", "prove", 5, "--copy", lines, status=2)
    (tmp_path / "tile/1/000.p/2").write_bytes(bytes(64))
    assert "roots differ" in hsmint("audit", "prove", 300, "--copy", tmp_path, status=1)


# What the schema (OCSF 1.3) requires of every event, and of each class.
BASE = {"category_uid", "class_uid", "activity_id", "type_uid", "severity_id", "time", "metadata"}
CLASSES = {3001: {"user"}, 3002: {"user", "service"}, 6002: {"app"}, 6003: {"actor", "api", "src_endpoint"}}


def test_ocsf(write):
    log = a_log(60)
    login = log.add("login-failed", actor=OWNER, name="batch", reason="secret id is wrong")
    refusal = log.add("refusal", actor=OWNER, capability="mint", code="Denied", reason="no policy")
    for kind in all_kinds():
        log.add(kind)
    events = [json.loads(x) for x in hsmint("audit", "export", "--ocsf", "-", "--copy", write(log)).splitlines()]
    assert len(events) == len(log.lines)
    for event, line in zip(events, log.lines):
        record = json.loads(line)
        assert BASE | CLASSES[event["class_uid"]] <= set(event), event
        assert event["category_uid"] == event["class_uid"] // 1000
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["metadata"]["version"] == "1.3.0" and event["metadata"]["sequence"] == record["seq"]
        assert {"name", "vendor_name"} <= set(event["metadata"]["product"])
        assert event["raw_data"].encode() == line
        assert event["actor"]["user"]["name"] == record["actor"]["owner"]
        assert auditlog.time_text(event["time"]) == record["time"]
        assert 1 <= event["severity_id"] <= 5, record["kind"]

    def of(seq):
        return events[seq - 1]

    mint = next(e for e in events if '"kind":"mint"' in e["raw_data"])
    assert (mint["class_uid"], mint["activity_id"]) == (3001, 1)
    assert mint["user"] == {"name": "hsmint-0", "uid": "sa_0", "type_id": 3}
    assert mint["actor"]["process"]["file"]["path"] == "/usr/bin/app"
    assert (of(login)["class_uid"], of(login)["status_id"], of(login)["user"]["name"]) == (3002, 2, "batch")
    assert (of(refusal)["api"]["operation"], of(refusal)["status_id"]) == ("mint", 2)
    call = next(e for e in events if '"method":"DELETE"' in e["raw_data"])
    assert call["activity_id"] == 4 and call["http_request"]["http_method"] == "DELETE"
    some = hsmint("audit", "export", "--ocsf", "-", "--copy", write(log), "--kind", "mint").splitlines()
    assert [json.loads(x) for x in some] == [e for e in events if '"kind":"mint"' in e["raw_data"]]


# ---- the report ----


def report(path, *words, status=0):
    return json.loads(hsmint("audit", "report", path, "--json", *words, status=status))


def test_a_report(write):
    log = a_log(20)
    begin = log.ms
    config = {"org": "default", "name": "default", "action": "set", "actor": {"owner": "user:0"}}
    log.add("config", **config, document='{"rotation_period":3600}')
    at = log.ms
    late = lease(log, 90, ttl=3600, life=9000, max_ttl=7200)
    renewed = lease(log, 91, ttl=100, life=150, dead=False)
    log.add("renew", lease=renewed, expires=auditlog.time_text(log.ms + 200_000))
    log.add("dead", lease=renewed, role="my-app")
    lease(log, 92, role="other", actor={"owner": "login:batch", "login": "batch"}, dead=False)
    for _ in range(3):
        log.add("refusal", actor=OWNER, capability="mint", code="Denied", reason="no policy")
    log.add("refusal", actor=OWNER, capability=["mint"], code="Denied", reason="no policy", omitted=7)
    log.add("break-glass", actor={"owner": "user:0"}, step="begin", reason="a key leaked", dry_run=False)
    log.call("lost")
    log.outcome("lost", fate="unknown", status=0)
    log.call("open")
    log.add("rotate", org="default", state="retire", name="n", new="key_2", old="key_1")
    log.add("hsm-lost", reason="gone")
    log.add("reconcile", finding="foreign", account_id="sa_x")
    log.add("login-failed", name="batch", reason="wrong")
    r = report(write(log), "--from", auditlog.time_text(begin + 1))
    assert r["verification"]["verdict"] == "holds"
    assert r["keys"] == {"minted": 3, "released": 3, "renewed": 1, "ended": 2, "alive": 1}
    assert [(x["lease"], x["life"]) for x in r["longest"]] == [(late, 9000)]
    assert [(x["lease"], x["life"], x["max_ttl"], x["owner"]) for x in r["over_max_ttl"]] == [(late, 9000, 7200, "user:1000")]
    assert [(x["lease"], x["beyond"]) for x in r["over_end"]] == [(late, 5400)]
    assert [(x["owner"], x["service"], x["role"], x["keys"]) for x in r["callers"]] == [
        ("user:1000", "app.service", "my-app", 2),
        ("login:batch", "", "other", 1),
    ]
    assert [(x["owner"], x["code"], x["count"]) for x in r["refusals"]] == [("user:1000", "Denied", 11)]
    assert [x["reason"] for x in r["break_glass"]] == ["a key leaked"]
    assert [x["call"] for x in r["unknown_calls"]] == ["lost", "open"]
    assert (r["calls"]["unknown"], r["calls"]["open"]) == (1, 1)
    assert [(x["new"], x["due"], x["late"]) for x in r["rotations"]] == [("key_2", auditlog.time_text(at + 3600_000), True)]
    assert [x["kind"] for x in r["incidents"]] == ["hsm-lost"]
    assert [x["kind"] for x in r["changes"]] == ["config"]
    assert r["reconcile"] == {"foreign": 1} and r["failed_logins"] == 1 and r["omitted"] == 0
    # Another span: what came before counts only where it lives on.
    r = report(write(log), "--to", auditlog.time_text(begin + 1))
    assert r["keys"]["minted"] == 2 and r["longest"][0]["life"] == 3000 and not r["break_glass"]
    text = hsmint("audit", "report", write(log))
    for part in ("Who used AI", "user:1000", "2h30m", "a key leaked", "Denied", "key_2"):
        assert part in text
    hsmint("audit", "report", write(log), "--from", "2026-01-02", "--to", "2026-01-01", status=2)


def test_a_rotation_that_is_overdue(write):
    log = a_log(10)
    log.add("config", org="default", action="set", document='{"rotation_period":60}')
    due = auditlog.time_text(log.ms + 60_000)
    log.add("policy", at_ms=log.ms + 61_000)
    assert [(x["state"], x["due"]) for x in report(write(log))["rotations"]] == [("overdue", due)]


def test_a_report_on_a_log_that_does_not_hold(write):
    path = tampered(write, lambda x: x.pop(8))
    r = report(path, status=1)
    assert r["verification"]["verdict"] == "faults"
    assert "does not hold" in hsmint("audit", "report", path, status=1)


# ---- witnesses ----


class Witness:
    """c2sp.org/tlog-witness, by the text of the protocol."""

    def __init__(self, log, leaves=(), tls=None):
        self.log, self.key, self.size, self.asked = log, WitnessKey("witness.example/w1"), len(leaves), []
        self.root = auditlog.root(list(leaves))
        self.answer = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(self.path)
                status, text = outer.answer or outer.add_checkpoint(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}/prefix"
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add_checkpoint(self, body):
        head, _, note = body.partition(b"\n\n")
        old, *proof = head.decode().splitlines()
        assert old.startswith("old ")
        try:
            origin, size, root = auditlog.read_checkpoint(note, [self.log.keys[0].vkey])
        except auditlog.Broken:
            return 403, b""
        if origin != self.log.origin:
            return 404, b""
        if int(old[4:]) != self.size:
            return 409, b"%d\n" % self.size
        expected = auditlog.consistency(self.log.leaves[:size], self.size)
        if [base64.b64decode(x) for x in proof] != expected or root != auditlog.root(self.log.leaves[:size]):
            return 422, b""
        self.size, self.root = size, root
        text = note.decode().rpartition("\n\n")[0] + "\n"
        return 200, auditlog.signature_line(self.key, text).encode()


@pytest.fixture
def witness(request):
    made = []

    def make(*args):
        made.append(Witness(*args))
        return made[-1]

    yield make
    for w in made:
        w.server.shutdown()
        w.server.server_close()


def test_a_witness(tmp_path, witness):
    log = a_log(300)
    log.write_tiles(tmp_path)
    w = witness(log)
    words = ("--url", w.url, "--key", w.key.vkey)
    keys = [k.vkey for k in log.keys] + [w.key.vkey]
    hsmint("audit", "witness", tmp_path, *words)
    assert w.size == 300 and w.asked == ["/prefix/add-checkpoint"]
    assert auditlog.verify(tmp_path, keys)
    assert verdict(tmp_path, "--key", keys[0], "--key", w.key.vkey)["keys_given"]
    while len(log.lines) < 777:
        log.add("policy", name="p")
    log.write_tiles(tmp_path)
    printed = hsmint("audit", "witness", tmp_path, *words)  # it says 409 and where it stands
    assert w.size == 777 and printed == (tmp_path / "checkpoint").read_text()
    hsmint("audit", "witness", tmp_path, *words)  # once more: one line all the same
    assert (tmp_path / "checkpoint").read_text().count("witness.example") == 1
    assert auditlog.verify(tmp_path, keys)


def test_a_witness_by_https(tmp_path, witness):
    log = a_log(40)
    log.write_tiles(tmp_path)
    pem = tmp_path / "pem"
    pem.write_bytes(auditlog.certificate("127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    w = witness(log, (), context)
    words = ("audit", "witness", tmp_path, "--url", w.url, "--key", w.key.vkey)
    assert "certificate" in hsmint(*words, status=5)  # nobody vouches for it
    assert w.asked == []
    hsmint(*words, "--ca-file", pem)
    assert w.asked == ["/prefix/add-checkpoint"]


def test_witnesses_that_refuse(tmp_path, witness):
    log = a_log(40)
    log.write_tiles(tmp_path)
    before = (tmp_path / "checkpoint").read_text()
    w = witness(log)
    words = ("--url", w.url, "--key", w.key.vkey)

    def refused(part, status=1):
        told = hsmint("audit", "witness", tmp_path, *words, status=status)
        assert part in told, told
        assert (tmp_path / "checkpoint").read_text() == before

    w.size = 50
    refused("has seen 50 records")
    w.size = 0
    for answer, part in (
        ((403, b""), "does not know the key"),
        ((404, b""), "does not know this log"),
        ((422, b""), "the proof does not hold"),
        ((500, b""), "status 500"),
        ((302, b""), "status 302"),
        ((409, b"many\n"), "does not say how many"),
        ((409, b"7\n"), "another state each time"),
        ((200, b""), "answer"),
        ((200, os.urandom(100)), "answer"),
        ((200, b"x" * 70000), "more than"),
        ((200, auditlog.signature_line(WitnessKey("witness.example/w1"), "other\n").encode()), "no cosignature"),
        ((200, auditlog.signature_line(w.key, "other\n").encode()), "does not fit"),
        ((200, b"\nother\n1\n\n" + auditlog.signature_line(w.key, "other\n1\n").encode()), "answer"),
    ):
        w.answer = answer
        refused(part, status=5 if answer[0] == 500 else 1)
    hsmint("audit", "witness", tmp_path, "--url", "http://example.org", "--key", w.key.vkey, status=2)
    hsmint("audit", "witness", tmp_path, "--url", "http://127.0.0.1:1@example.org/", "--key", w.key.vkey, status=2)
    hsmint("audit", "witness", tmp_path, "--url", w.url, "--key", log.keys[0].vkey, status=2)
    hsmint("audit", "witness", tmp_path, "--url", w.url, status=2)
    w.server.shutdown()
    w.server.server_close()
    assert "127.0.0.1" in hsmint("audit", "witness", tmp_path, *words, status=5)


# ---- what others make of it ----


@pytest.fixture(scope="module")
def independent(tmp_path_factory):
    """tests/independent, with the Go project's packages of these formats: run(what, path, *vkeys)."""
    go = shutil.which("go") or pytest.skip("go is not installed")
    built = tmp_path_factory.mktemp("go") / "independent"
    r = subprocess.run([go, "build", "-o", built, "."], cwd=SOURCE / "tests/independent", capture_output=True, text=True, timeout=300)
    if r.returncode:
        pytest.skip("golang.org/x/mod is not to be had: " + r.stderr.strip().splitlines()[-1])

    def run(what, path, *keys, status=0):
        r = subprocess.run([built, what, path, *(k.vkey for k in keys)], capture_output=True, timeout=60)
        assert r.returncode == status, r.stderr.decode()
        return r.stdout.removesuffix(b"\n")

    return run


def test_an_independent_verifier(tmp_path, independent):
    log = a_log(700)
    hsmint("audit", "export", tmp_path / "copy", "--copy", log.write_lines(tmp_path / "lines"))
    assert independent("tiles", tmp_path / "copy", *log.keys) == b"hsmint/test 700"
    for seq in (1, 256, 257, 700):
        proof = tmp_path / "proof"
        proof.write_text(hsmint("audit", "prove", seq, "--copy", tmp_path / "copy"))
        assert independent("proof", proof, *log.keys) == log.lines[seq - 1]
    # It can tell.
    proof.write_text(proof.read_text().replace("index 699", "index 698"))
    independent("proof", proof, *log.keys, status=1)
    independent("tiles", tmp_path / "copy", EcdsaKey(log.origin), status=1)
    entries = tmp_path / "copy/tile/entries/001"
    entries.write_bytes(entries.read_bytes().replace(b'"sync":true', b'"sync":null', 1))
    independent("tiles", tmp_path / "copy", *log.keys, status=1)


# ---- the daemon's own log ----


@pytest.fixture
def cli(daemon_stopped):
    daemon_stopped.settings["audit"] = {"anchor_seconds": 1}  # what is older than the anchor may be pruned
    ready = daemon_stopped.start().prepare()
    env = {"HSMINT_SOCKET": str(ready.socket), "HSMINT_CONFIG": str(ready.config)}

    def run(*words, **options):
        return hsmint(*words, env=env, **options)

    run.daemon, run.env = ready, env
    return run


def test_the_log_of_a_daemon(cli, tmp_path, independent):
    minted = [json.loads(cli("mint", "my-app", "--json")) for _ in range(3)]
    cli("lease", "revoke", minted[0]["lease_id"])
    cli("policy", "delete", "nobody", status=4)
    keys = tmp_path / "keys"
    keys.write_text(cli("audit", "key"))
    vkeys = keys.read_text().split()
    head = json.loads(cli("audit", "head", "--sign", "--json"))
    assert head["signed"] >= 10 and head["keys"] == vkeys
    early = tmp_path / "early"
    early.write_text(cli("audit", "head"))
    origin, size, _ = auditlog.read_checkpoint(early.read_bytes(), vkeys)
    assert size == head["signed"] and origin == head["origin"]

    copy, lines = tmp_path / "copy", tmp_path / "lines"
    cli("audit", "export", copy)
    cli("mint", "my-app")
    cli("audit", "export", copy)  # goes on
    cli("audit", "export", "--jsonl", lines)
    for path in (copy, lines):
        v = verdict(path, "--key", keys, "--since", early)
        assert v["keys_given"] and v["calls"] >= 4 and v["origin"] == origin
    checked, records = auditlog.verify(copy, vkeys)
    assert checked == origin and len(records) >= size
    assert independent("tiles", copy, *[Vkey(v) for v in vkeys]).split()[0] == origin.encode()

    # Its records, online and of the copy.
    assert cli("audit", "show", 2, "--json").encode() == records[1] + b"\n"
    for words in (("--kind", "mint"), ("--lease", minted[0]["lease_id"]), ("--role", "my-app"), ("--kind", "call")):
        found = cli("audit", "search", *words, "--json")
        assert found and found.startswith(hsmint("audit", "search", *words, "--json", "--copy", copy))
    request = next(json.loads(r)["service_request_id"] for r in records if b'"service_request_id"' in r)
    assert json.loads(cli("audit", "search", "--request", request, "--json"))["service_request_id"] == request
    assert len(cli("audit", "show", "--limit", 5).splitlines()) == 5

    # Proofs.
    mint = next(json.loads(r) for r in records if b'"kind":"mint"' in r)
    proof = tmp_path / "one.tlog-proof"
    proof.write_text(cli("audit", "prove", mint["seq"]))
    assert json.loads(auditlog.verify_proof(proof.read_bytes(), vkeys)) == mint
    assert independent("proof", proof, *[Vkey(v) for v in vkeys])
    assert json.loads(hsmint("audit", "verify", proof, "--key", keys, "--json"))["record"] == mint
    assert "no record" in cli("audit", "show", 100000, status=4)

    # The report, and whose a key is.
    r = report(copy, "--key", keys)
    assert r["verification"]["verdict"] == "holds" and r["keys"]["minted"] == 4 and r["over_max_ttl"] == r["over_end"] == []
    assert [x["role"] for x in r["callers"]] == ["my-app"] and r["callers"][0]["keys"] == 4
    whose = json.loads(cli("audit", "whose", "--json", stdin=minted[1]["api_key"].encode()))
    assert (whose["lease_id"], whose["role"]) == (minted[1]["lease_id"], "my-app")
    assert "no key that was minted here" in cli("audit", "whose", stdin=b"sk-svcacct-other", status=4)

    # No secret in any of it.
    secrets = [m["api_key"].encode() for m in minted] + [cli.daemon.service.admin_key.encode()]
    everything = b"".join(p.read_bytes() for p in (lines, *copy.rglob("*")) if p.is_file())
    assert not [s for s in secrets if s in everything]
    cli("audit", "accept-rollback", status=2)
    assert "there is none to accept" in cli("audit", "accept-rollback", "--reason", "none", status=4)


def test_prune(cli, tmp_path):
    policy = {"subjects": ["user:40001"], "roles": ["*"], "capabilities": ["caller"]}
    with cli.daemon.attached() as c:
        for i in range(520):
            c.change("SetPolicy", name="often", fields={**policy, "description": str(i)})
    copy, before = tmp_path / "copy", tmp_path / "before"
    assert "exported" in cli("audit", "prune", "--before", 512, status=1)  # nothing was
    cli("audit", "prune", status=2)
    cli("audit", "export", copy)
    before.write_text((copy / "checkpoint").read_text())
    assert "exported" in cli("audit", "prune", "--before", 10**6, status=1)
    went = wait_for(lambda: json.loads(cli("audit", "prune", "--before", before, "--json"))["pruned"], what="the anchor")
    assert went == 512
    # What stays is read, proved and exported as before.
    assert "no record 512 is there" in cli("audit", "show", 512, status=4)
    assert json.loads(cli("audit", "show", 513, "--json"))["seq"] == 513
    vkeys = cli("audit", "key").split()
    assert json.loads(auditlog.verify_proof(cli("audit", "prove", 513).encode(), vkeys))["seq"] == 513
    assert "were pruned" in cli("audit", "export", tmp_path / "other", status=4)
    assert "were pruned" in cli("audit", "export", "--jsonl", tmp_path / "lines", status=4)
    cli("audit", "head", "--sign")
    cli("audit", "export", copy)
    v = verdict(copy, "--since", before, *[x for k in vkeys for x in ("--key", k)])
    assert v["size"] > 520 and b'"kind":"prune"' in auditlog.verify(copy, vkeys)[1][-1]
    # Of the copy, all of it is there.
    assert json.loads(hsmint("audit", "show", 5, "--json", "--copy", copy))["seq"] == 5


class Vkey:
    def __init__(self, vkey):
        self.vkey = vkey


def test_follow(cli):
    p = subprocess.Popen(
        [program("hsmint"), "audit", "follow", "--kind", "mint", "--json"], env={**os.environ, **cli.env}, stdout=subprocess.PIPE, text=True
    )
    try:
        time.sleep(1)
        cli("mint", "my-app")
        assert json.loads(p.stdout.readline())["kind"] == "mint"
        cli("mint", "my-app")
        assert json.loads(p.stdout.readline())["kind"] == "mint"
    finally:
        p.terminate()
        p.wait()
