"""States of the HSM's keys by NIST SP 800-57: written down with their dates, told in the log in the
transaction of what changes them, and shown with what the HSM says of each key."""

import json
import os
import signal
import sqlite3
import subprocess

import pytest

from auditcli import hsmint, verdict
from conftest import wait_for
from test_hsm_rotate import destroy, holds, mints, quiet, records, rotate
from varlink import Error

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
