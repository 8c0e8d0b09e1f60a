"""hsmint audit: copies in other forms, what other implementations make of them, and the daemon's own log."""

import json
import os
import sqlite3
import subprocess
import time

import pytest

import auditlog
from auditcli import OWNER, Vkey, a_log, all_kinds, hsmint, independent, names, report, verdict, write  # noqa: F401 (fixtures)
from auditlog import EcdsaKey
from conftest import program


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
    known = log.add("key-state", key="hsmint-log-1", fingerprint="ab" * 32, state="compromised", was="active", reason="stolen")
    rotated = log.add("rotate-key", key="log", state="done", cause="schedule", handed_over=7)
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
    assert (of(known)["severity_id"], of(known)["message"], of(rotated)["severity_id"]) == (4, "stolen", 2)
    assert of(known)["resources"] == [
        {"type": "HSM key", "name": "hsmint-log-1", "uid": "ab" * 32, "data": {"state": "compromised", "was": "active"}}
    ]
    assert of(rotated)["resources"] == [
        {"type": "HSM key", "name": "log", "data": {"state": "done", "cause": "schedule", "handed_over": 7}}
    ]
    some = hsmint("audit", "export", "--ocsf", "-", "--copy", write(log), "--kind", "mint").splitlines()
    assert [json.loads(x) for x in some] == [e for e in events if '"kind":"mint"' in e["raw_data"]]


# ---- what others make of it ----


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
    daemon_stopped.settings["audit"] = {"checkpoint_seconds": 1}
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
        assert not verdict(path)["keys_given"]  # those of its own records
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

    # At once: the anchor on the HSM, a quarter of an hour old at most, is renewed.
    assert json.loads(cli("audit", "prune", "--before", before, "--json"))["pruned"] == 512
    assert json.loads(cli("audit", "head", "--sign", "--json"))["first"] == 513
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


def test_a_store_that_was_changed(cli, tmp_path):
    """Its records do not go into a copy, and the log says that somebody saw it."""
    cli("mint", "my-app")
    cli("audit", "head", "--sign")
    with sqlite3.connect(cli.daemon.state / "store.db", timeout=10) as db:
        db.execute("""UPDATE record SET line = replace(line, 'my-app', 'my-ape') WHERE line LIKE '%"kind":"mint"%'""")
    text = cli("audit", "export", tmp_path / "copy", status=1)
    assert "records" in text and not (tmp_path / "copy" / "checkpoint").exists()
    (told,) = [json.loads(line) for line in cli("audit", "search", "--kind", "verify-failed", "--json").splitlines()]
    assert told["kind"] == "verify-failed" and told["size"] > 6 and told["reason"]
