"""States of the HSM's keys by NIST SP 800-57: written down with their dates, told in the log in the
transaction of what changes them, and shown with what the HSM says of each key."""

import hashlib
import json
import time
import os
import signal
import sqlite3
import subprocess

import pytest

import auditlog
from auditcli import hsmint, verdict
from clocks import set_clock, spawn_with_clock
from conftest import callers, wait_for
from test_hsm_rotate import destroy, holds, mints, quiet, records, rotate

KEPT = {"local": True, "never_extractable": True, "always_sensitive": True, "extractable": False}


def show(daemon):
    """label → key, as `hsmint hsm show --json` has it."""
    told = json.loads(hsmint("hsm", "show", "--json", env={"HSMINT_SOCKET": str(daemon.socket)}))
    return {k["label"]: k for k in told["keys"]}, told


def states(daemon):
    return {label: k["state"] for label, k in show(daemon)[0].items()}


def lines(daemon):
    out = hsmint("hsm", "show", env={"HSMINT_SOCKET": str(daemon.socket)})
    assert all(len(line) <= 80 for line in out.splitlines()), out
    return out


def told(daemon):
    return [(r["key"], r.get("was"), r["state"]) for r in records(daemon, "key-state")]


def test_init(ready, place):
    keys, whole = show(ready)
    assert {k["state"] for k in keys.values()} == {"active"}
    for label, k in keys.items():
        assert {n: k["attributes"][n] for n in KEPT} == KEPT and k["attributes"]["id"] == k["id"]
        assert k["missing"] is False and len(k["fingerprint"]) == 64 and label == f"hsmint-{k['use']}-1"
        assert [(d["state"], d["reason"], d["exact"]) for d in k["dates"]] == [("active", "init", True)]
    purposes = {k["use"]: k["purpose"] for k in keys.values()}
    assert purposes["seal"] == "seals" and purposes["call"] == "signs calls" and purposes["log"] == "signs log"
    assert sorted(told(ready)) == sorted((label, None, "active") for label in keys)
    r = records(ready, "key-state")[0]
    assert {n: r["attributes"][n] for n in KEPT} == KEPT and r["reason"] == "init" and r["exact"] is True
    assert r["actor"]["owner"].startswith("user:") and r["fingerprint"] == keys[r["key"]]["fingerprint"]
    (admin,) = whole["admin_keys"]
    assert admin["state"] == "active" and admin["id"].startswith("key_")
    assert not [k for k in json.dumps(whole).split('"') if k.startswith("sk-")]
    print(lines(ready))
    holds(ready, place)


def test_rotated_destroyed_restarted(ready, service, place, token):
    rotate(ready, "call")
    rotate(ready, "log")
    rotate(ready, "log")
    now = states(ready)
    assert now["hsmint-call-2"] == "active" and now["hsmint-call-1"] == "deactivated"
    assert now["hsmint-log-3"] == now["hsmint-log-2"] == "active" and now["hsmint-log-1"] == "deactivated"
    keys, _ = show(ready)
    assert keys["hsmint-log-2"]["purpose"] == "co-signs" and keys["hsmint-log-1"]["purpose"] == "verifies"
    assert [d["state"] for d in keys["hsmint-call-2"]["dates"]] == ["pre-activation", "active"]
    assert [d["state"] for d in keys["hsmint-call-1"]["dates"]] == ["active", "deactivated"]
    told_of = [t for t in told(ready) if t[0].startswith("hsmint-call")]
    assert told_of == [("hsmint-call-1", None, "active"), ("hsmint-call-2", None, "pre-activation"),
                       ("hsmint-call-2", "pre-activation", "active"), ("hsmint-call-1", "active", "deactivated")]
    # The record of the new key's activation, the pins' and that of the rotation's step are one transaction.
    active = next(r for r in records(ready, "key-state") if r["key"] == "hsmint-call-2" and r["state"] == "active")
    assert {n: active["attributes"][n] for n in KEPT} == KEPT
    before = told(ready)
    ready.stop()
    ready.start()
    assert service.accepts(mints(ready)) and told(ready) == before and states(ready) == now
    destroy(ready, "hsmint-call-1")
    keys, _ = show(ready)
    assert keys["hsmint-call-1"]["state"] == "destroyed" and keys["hsmint-call-1"]["missing"] is True
    assert told(ready)[-1] == ("hsmint-call-1", "deactivated", "destroyed")
    # One that should be there and is not, and one that nobody has to miss.
    subprocess.run(["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin,
                    "--delete-object", "--type", "privkey", "--label", "hsmint-log-1"],
                   env={**os.environ, **token.environment}, check=True, capture_output=True)
    keys, _ = show(ready)
    assert keys["hsmint-log-1"]["missing"] is True
    out = lines(ready)
    assert "is missing on the HSM" in out
    print(out)
    holds(ready, place)


def store(daemon):
    return sqlite3.connect(daemon.state / "store.db")


def test_an_instance_of_before(ready, service, place):
    """Keys that an older version made: no document tells of them."""
    rotate(ready, "call")
    ready.stop()
    with store(ready) as db:
        db.execute("DELETE FROM document WHERE kind = 'hsm-key'")
        made = db.execute("SELECT min(created_ms) FROM org").fetchone()[0]
    ready.start()
    keys, _ = show(ready)
    first, second, old = keys["hsmint-seal-1"], keys["hsmint-call-2"], keys["hsmint-call-1"]
    assert first["state"] == second["state"] == "active" and old["state"] == "deactivated"
    assert first["dates"] == [{"state": "active", "at_ms": made, "exact": False, "reason": "made by an older version"}]
    assert second["since_ms"] > made and not second["dates"][0]["exact"]
    assert "or before" in lines(ready)
    said = [r for r in records(ready, "key-state") if r["reason"] == "made by an older version"]
    assert {r["key"] for r in said} == set(keys) and not any(r["exact"] for r in said)
    ready.stop()
    ready.start()
    assert len([r for r in records(ready, "key-state") if r["reason"] == "made by an older version"]) == len(said)
    assert service.accepts(mints(ready))
    holds(ready, place)


def compromised(daemon, key):
    with daemon.attached(timeout=60) as c:
        return c.change("CompromisedHsmKey", name=key)["rotation"]


def vkey(daemon):
    out = hsmint("audit", "key", env={"HSMINT_SOCKET": str(daemon.socket)})
    return next(line.strip() for line in out.splitlines() if "+" in line)


def test_a_compromised_call_key(ready, service, place, token):
    assert compromised(ready, "call") == {"key": "call", "state": "done"}
    keys, _ = show(ready)
    old, new = keys["hsmint-call-1"], keys["hsmint-call-2"]
    assert old["state"] == "compromised" and old["declared_ms"] and new["state"] == "active"
    assert [r["state"] for r in records(ready, "rotate-key")] == ["compromised", "make", "take", "done"]
    assert {r["cause"] for r in records(ready, "rotate-key")} == {"compromised"}
    assert service.accepts(mints(ready))
    ready.stop()
    ready.start()
    assert service.accepts(mints(ready)) and states(ready)["hsmint-call-1"] == "compromised"
    destroy(ready, "hsmint-call-1")
    assert states(ready)["hsmint-call-1"] == "destroyed-compromised"
    assert told(ready)[-1] == ("hsmint-call-1", "compromised", "destroyed-compromised")
    assert "declared compromised" in lines(ready)
    holds(ready, place)


def test_mints_go_on_when_the_call_key_is_compromised(ready, service, place):
    """At full speed: none fails, and none that is recorded after the mark is signed by that key."""
    with callers(lambda: mints(ready), 10) as made:
        for _ in range(3):
            before = len(made)
            compromised(ready, "call")
            wait_for(lambda: len(made) > before + 4, 20, "mints by the new key")
    marks = {r["key"]: r["seq"] for r in records(ready, "key-state") if r["state"] == "compromised"}
    assert set(marks) == {"hsmint-call-1", "hsmint-call-2", "hsmint-call-3"}
    for r in records(ready, "call"):
        assert r["seq"] < marks.get(r["signed"]["keyid"].split(":")[0], r["seq"] + 1), r
    holds(ready, place)


def test_a_compromised_log_key(ready, service, place):
    first = vkey(ready)
    assert service.accepts(mints(ready))
    copy = place / "copy"
    env = {"HSMINT_SOCKET": str(ready.socket)}
    hsmint("audit", "export", copy, env=env)
    verdict(copy, "--key", first)
    rotate(ready, "log")  # the one before co-signs; from the mark on, neither does
    assert compromised(ready, "log") == {"key": "log", "state": "done"}
    now = states(ready)
    assert now["hsmint-log-3"] == "active" and now["hsmint-log-2"] == "compromised" and now["hsmint-log-1"] == "deactivated"
    third = vkey(ready)
    mints(ready)
    active = sum(k.startswith("hsmint-log") and s == "active" for k, s in now.items())

    def by_active_keys_alone():
        hsmint("audit", "export", copy, env=env)
        return (copy / "checkpoint").read_text().count("\u2014 ") == active

    wait_for(by_active_keys_alone, 15, "the next checkpoint")  # the last one may be from before
    verdict(copy, "--key", first, "--key", third)
    # Who has but the key before it is told why it leads no further.
    v = verdict(copy, "--key", first, status=1)
    assert {f["what"] for f in v["findings"]} == {"checkpoint"}
    assert any("hsmint-log-2 is compromised since record" in f["text"] for f in v["findings"]), v
    ready.kill()
    ready.start()
    assert service.accepts(mints(ready)) and not records(ready, "rollback")
    os.kill(ready.keeper(), signal.SIGKILL)
    assert service.accepts(wait_for(lambda: quiet(mints, ready), 20, "the keeper to be back"))
    holds(ready, place, "--key", third)
    destroy(ready, "hsmint-log-2")
    assert states(ready)["hsmint-log-2"] == "destroyed-compromised"
    rotate(ready, "log")
    assert service.accepts(mints(ready))
    holds(ready, place, "--key", third)


def test_what_a_compromised_key_signed_is_a_fault(tmp_path):
    """A log by another writer, which goes on signing with keys that it says are compromised."""
    log = auditlog.Log()
    log.call("one")
    log.outcome("one")
    log.add("key-state", key="hsmint-call-1", use="call", fingerprint=auditlog.KEYID.split(":")[1] + "0" * 48,
            state="compromised", was="active")
    verdict(log.write_lines(tmp_path / "before"))
    log.call("two")
    log.outcome("two")
    v = verdict(log.write_lines(tmp_path / "call"), status=1)
    assert [(f["what"], f["seq"]) for f in v["findings"]] == [("compromised", 6)], v
    log = auditlog.Log()
    before = log.checkpoint()
    key = log.keys[0]
    log.add("key-state", key="hsmint-log-1", use="log", fingerprint=hashlib.sha256(key.public).hexdigest(),
            state="compromised", was="active")
    v = verdict(log.write_lines(tmp_path / "log"), "--key", key.vkey, status=1)
    assert [f["what"] for f in v["findings"]] == ["checkpoint"] and "compromised since record" in v["findings"][0]["text"], v
    (tmp_path / "since").write_text(before)
    new = auditlog.EcdsaKey(log.origin)
    copy = log.write_lines(tmp_path / "new", log.checkpoint(keys=[new]))
    verdict(copy, "--key", new.vkey, "--key", key.vkey, "--since", tmp_path / "since")
    v = verdict(copy, "--key", key.vkey, status=1)
    assert "introduces no other" in v["findings"][0]["text"], v
    # Both sign: the compromised one proves nothing for the other.
    both = log.write_lines(tmp_path / "both", log.checkpoint(keys=[key, new]))
    assert verdict(both, "--key", key.vkey, status=1)


def test_periods(daemon_stopped, service):
    """Older than its period: replaced by itself, the same way; also what came due while it was down."""
    d = daemon_stopped
    d.settings["hsm"]["call_period"] = "2h"
    spawn_with_clock(d)
    d.prepare()
    _, whole = show(d)
    assert set(whole["periods"]) == {"call"} and whole["periods"]["call"]["period"] == 7200
    began = show(d)[0]["hsmint-call-1"]["since_ms"]
    assert whole["periods"]["call"]["next_ms"] == began + 7200000 and "hsmint-call-2" not in states(d)
    assert "next rotation" in lines(d)
    set_clock(d, 7300)
    wait_for(lambda: states(d).get("hsmint-call-2") == "active", 30, "the call key to be rotated")
    steps = [(s, "schedule") for s in ("make", "take", "done")]
    wait_for(lambda: [(r["state"], r["cause"]) for r in records(d, "rotate-key")] == steps, 20, "its end")
    assert {r["actor"]["owner"] for r in records(d, "rotate-key")} == {"hsmintd"}
    assert states(d)["hsmint-log-1"] == "active" and "rotation: schedule" in lines(d)
    assert service.accepts(mints(d))
    d.stop()
    set_clock(d, 4 * 7200)
    spawn_with_clock(d, 4 * 7200)
    wait_for(lambda: quiet(states, d) and states(d).get("hsmint-call-3") == "active", 30, "what came due while it was down")
    assert service.accepts(mints(d))


def test_a_clock_that_was_ahead(daemon_stopped, service):
    """By it the keys are as old as it likes. Each is rotated once, and not for ever after."""
    d, month = daemon_stopped, 30 * 86400
    d.settings["hsm"]["call_period"] = "2h"
    spawn_with_clock(d, month)
    d.prepare()
    (before,) = show(d)[1]["admin_keys"]
    compromised(d, "seal")
    wait_for(lambda: [k["id"] for k in show(d)[1]["admin_keys"]] not in ([], [before["id"]]), 40, "another admin key")
    wait_for(lambda: len(show(d)[1]["admin_keys"]) == 1, 40, "one admin key")
    made = len(records(d, "seal"))
    set_clock(d, 0)
    wait_for(lambda: states(d).get("hsmint-call-2") == "active", 30, "the call key to be rotated")
    time.sleep(20)
    assert "hsmint-call-3" not in states(d)
    assert len(records(d, "seal")) <= made + 1
    assert service.accepts(mints(d))


def test_a_compromised_seal_key(ready, service, place):
    """What it opens may be known: all is sealed anew, and the admin key is another one at the service."""
    (before,) = show(ready)[1]["admin_keys"]
    assert compromised(ready, "seal")["key"] == "seal"
    wait_for(lambda: states(ready).get("hsmint-seal-1") == "compromised", 20, "the mark")
    now = states(ready)
    assert now["hsmint-blob-1"] == "compromised" and now["hsmint-seal-2"] == now["hsmint-blob-2"] == "active"

    def exchanged():
        active = [k for k in show(ready)[1]["admin_keys"] if k["state"] == "active"]
        return [k["id"] for k in active] not in ([], [before["id"]])

    wait_for(exchanged, 40, "the admin key to be exchanged")
    assert {r["cause"] for r in records(ready, "rotate")} == {"compromised"}
    assert service.accepts(mints(ready))
    holds(ready, place)
