"""hsmint audit: what verify, report, show and search make of copies of the log, without a daemon."""

import base64
import json
import os
import subprocess
import threading

import pytest

import auditlog
from auditcli import OWNER, a_log, all_kinds, hsmint, lease, names, report, tampered, verdict, write  # noqa: F401 (a fixture)
from auditlog import EcdsaKey, Ed25519Key, Log, WitnessKey
from conftest import not_sanitized, program


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


def test_a_new_key_of_the_log(tmp_path):
    """An auditor who has the old key: a checkpoint that both have signed introduces the new one."""
    log = a_log(20)
    old, new = EcdsaKey(log.origin), EcdsaKey(log.origin)
    log.keys = [old]
    key = ("--key", old.vkey)
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    log.keys = [old, new]
    log.add_keys()
    both, of_new, of_stranger = (log.checkpoint(keys=k) for k in ([old, new], [new], [EcdsaKey(log.origin), new]))
    size = len(log.lines)
    log.keys = [new]
    for _ in range(5):
        log.add("policy")
    log.write_tiles(tmp_path)
    assert "no signature of a known key" in verdict(tmp_path, *key, status=1)["findings"][0]["text"]
    for checkpoint, status in ((both, 0), (of_new, 1), (of_stranger, 1)):
        (kept / str(size)).write_text(checkpoint)
        verdict(tmp_path, *key, status=status)
    (kept / str(size)).unlink()
    since, lines = tmp_path / "since", log.write_lines(tmp_path / "lines")
    since.write_text(both)
    verdict(lines, *key, "--since", since)
    since.write_text(of_new)
    verdict(lines, *key, "--since", since, status=1)


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


def add_again(log, seq, **changed):
    """The record once more, in its own place in the chain: what a daemon may have signed."""
    record = json.loads(log.lines[seq - 1])
    own = {k: v for k, v in record.items() if k not in ("v", "seq", "prev", "time", "sync", "kind")}
    return log.add(record["kind"], **{**own, **changed})


def test_a_call_that_is_invented(write):
    log = a_log()
    first = log.call("once", actor=OWNER)
    log.outcome("once")
    again = add_again(log, first, call="other", actor={"owner": "user:1001"})
    log.outcome("other")
    v = verdict(write(log), status=1)
    assert [(f["what"], f["seq"]) for f in v["findings"]] == [("inserted", again)]


def test_another_key_of_calls_is_told(write):
    log = a_log()
    of_log = ("--key", log.keys[0].vkey)
    assert verdict(write(log), *of_log)["findings"] == []
    add_again(log, 2)  # the same key: nothing new
    record = json.loads(log.lines[1])
    strange = auditlog.Log().lines[1]  # a key that no HSM has
    key = {**json.loads(strange)["call"][0], "keyid": "mine:0011"}
    seq = add_again(log, 2, call=[*record["call"], key])
    v = verdict(write(log), *of_log)
    assert [(f["what"], f["seq"]) for f in v["findings"]] == [("call-key", seq)]
    assert "mine:0011" in v["findings"][0]["text"]


@pytest.mark.parametrize("time", ["2026-\n\n1-\n\n\n\n\n1T1:1:1.1Z", "2026-01-01T00:00:00.+01Z", "2026-01-01 00:00:00.001Z"])
def test_a_time_is_one(write, time):
    log = a_log()
    seq = log.add("policy")
    log.lines[-1] = log.lines[-1].replace(auditlog.time_text(log.ms).encode(), json.dumps(time)[1:-1].encode())
    names(verdict(write(log), status=1), "format", seq)


@pytest.mark.parametrize("number", [0, -5, 2**63 - 1])
def test_a_seq_is_one(write, number):
    log = a_log()
    log.lines[-1] = log.lines[-1].replace(b'"seq":40', b'"seq":%d' % number)
    names(verdict(write(log), status=1), "format", 40)


def test_a_record_is_one_line(tmp_path):
    log = a_log()
    log.lines[-1] = log.lines[-1].replace(b'{"v":2,', b'{"v":2,\n')
    names(verdict(log.write_tiles(tmp_path), status=1), "format", len(log.lines))


def test_garbage(tmp_path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"x" + os.urandom(4 << 20).replace(b"\n\n", b"xx"))
    v = verdict(garbage, status=1)
    assert len(v["findings"]) == 1000 and v["omitted"] > 0
    garbage.write_bytes(b"x" * (4 << 20))
    assert [f["what"] for f in verdict(garbage, status=1)["findings"]] == ["format", "checkpoint"]
    garbage.write_bytes(b"")
    verdict(garbage, status=1)


def test_what_is_no_file(tmp_path):
    assert "no file and no directory" in hsmint("audit", "verify", "/dev/zero", status=1)
    log = a_log()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=log.write_lines, args=(fifo,))
    writer.start()
    verdict(fifo)  # a log that is unpacked on the way, say
    writer.join()


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


# ---- the report ----


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


def test_which_keys_of_the_hsm_changed(write):
    """When, why and by whom; with what proves it to who knows the key before."""
    log = a_log(5)
    by, alone = {"owner": "user:0"}, {"owner": "hsmintd"}
    at = log.ms
    log.add("rotate-key", actor=by, key="log", state="compromised", cause="compromised", old=["hsmint-log-1"])
    log.add("key-state", actor=by, key="hsmint-log-1", use="log", version=1, fingerprint="ab" * 32, state="compromised",
            was="active", reason="somebody knows it", since=auditlog.time_text(at), exact=True, attributes={"local": True})
    log.add("rotate-key", actor=alone, key="log", state="done", cause="schedule", new=["hsmint-log-3"], handed_over=7)
    log.add("rotate-key", actor=by, key="seal", state="abandoned", was="reseal", new=["hsmint-seal-2"], left=3)
    log.add("restore", actor=by, what="hsm", state="done", reason="burnt", new=["hsmint-log-4"], hmac_key="given", lost=2)
    r = report(write(log), "--from", auditlog.time_text(at + 1))
    keys = r["hsm_keys"]
    assert [(x["key"], x["state"], x.get("was"), x.get("cause"), x["owner"]) for x in keys] == [
        ("log", "compromised", None, "compromised", "user:0"),
        ("hsmint-log-1", "compromised", "active", None, "user:0"),
        ("log", "done", None, "schedule", "hsmintd"),
        ("seal", "abandoned", "reseal", None, "user:0"),
    ]
    assert [x["time"] for x in keys] == sorted(x["time"] for x in keys) and not r["changes"]
    assert (keys[0]["old"], keys[2]["new"], keys[2]["handed_over"], keys[3]["left"]) == (["hsmint-log-1"], ["hsmint-log-3"], 7, 3)
    assert keys[1]["reason"] == "somebody knows it" and keys[1]["fingerprint"] == "ab" * 32 and keys[1]["exact"]
    incident = r["incidents"][0]
    assert (incident["what"], incident["state"], incident["reason"], incident["lost"]) == ("hsm", "done", "burnt", 2)
    text = hsmint("audit", "report", write(log))
    for part in ("Keys of the HSM", "hsmint-log-1", "somebody knows it", "schedule", "abandoned", "burnt"):
        assert part in text


@pytest.mark.parametrize(
    "plan, due, overdue",
    [  # of a key that was rotated at 2025-11-21T08:00:00Z, a Friday
        ({"rotation_period": 6000}, "2025-11-21T09:40:00.000Z", 600),
        ({"rotation_schedule": "0 3 * * SUN"}, "2025-11-23T03:00:00.000Z", 3600),
        ({"rotation_schedule": "0 3 * * SUN", "rotation_window": 600}, "2025-11-23T03:00:00.000Z", 600),
        ({"rotation_schedule": "nonsense"}, None, 0),
        ({"rotation_period": 6000, "disable_automated_rotation": True}, None, 0),
    ],
)
def test_rotations_that_are_due(write, plan, due, overdue):
    document = json.dumps({**plan, "last_rotated_ms": auditlog.BEGIN_MS})
    at = auditlog.time_ms(due) if due else auditlog.BEGIN_MS

    def of(seconds, *rotations):
        log = Log()
        log.add("config", org="default", action="set", document=document)
        for s in rotations:
            log.add("rotate", org="default", state="retire", tries=0, cause="c", new="n", old="o", at_ms=at + s * 1000)
        log.add("policy", at_ms=at + seconds * 1000)
        return [(x["state"], x.get("due"), x.get("late")) for x in report(write(log))["rotations"]]

    if not due:
        assert of(10**7) == [] and of(10, 5) == [("retire", None, None)]
        return
    assert of(overdue) == []
    assert of(overdue + 1) == [("overdue", due, True)]
    assert of(overdue, 0) == [("retire", due, False)]
    assert of(overdue + 10, overdue + 1) == [("retire", due, True)]


def test_a_long_path_hides_no_role(write):
    log = a_log(10)
    of_long = [{"owner": "user:1001", "uid": 1001, "exe": "/" + "x" * 4000 + end} for end in "ab"]
    lease(log, 900, role="batch", actor=of_long[0])
    lease(log, 901, role="secret", actor=of_long[0])
    lease(log, 902, role="secret", actor=of_long[1])
    callers = [c for c in report(write(log))["callers"] if c["owner"] == "user:1001"]
    assert [(c["service"][-1], c["role"], c["keys"]) for c in callers] == [("a", "batch", 1), ("a", "secret", 1), ("b", "secret", 1)]


def test_a_report_on_a_log_that_does_not_hold(write):
    path = tampered(write, lambda x: x.pop(8))
    r = report(path, status=1)
    assert r["verification"]["verdict"] == "faults"
    assert "does not hold" in hsmint("audit", "report", path, status=1)
