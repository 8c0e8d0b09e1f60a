"""Keys of roles that want the proof of death are used until they are refused."""

import sqlite3

import pytest

from conftest import PROJECT, wait_for
from test_time import lease, mint, records

def proven_role(daemon, **more):
    with daemon.attached() as c:
        c.change("SetRole", name="proven", fields={"project_id": PROJECT, "ttl": 3600, "prove_death": True, **more})


def row(daemon, id):
    with sqlite3.connect(f"file:{daemon.state}/store.db?mode=ro", uri=True) as db:
        found = db.execute("SELECT proof, probe, sealed FROM lease WHERE id = ?", (id,)).fetchone()
    db.close()
    return found


def test_a_death_is_proven(ready, service):
    """The service forgets the key two seconds late: used until then, and no longer."""
    proven_role(ready)
    service.control("settings", {"revoke_ms": 2000})
    found, key = mint(ready, "proven")
    wait_for(lambda: row(ready, found["lease_id"])[0] == 2, 5, "the key to be seen alive")
    assert row(ready, found["lease_id"])[1] is not None
    with ready.attached() as c:
        c.change("Revoke", lease_id=found["lease_id"])
    assert service.accepts(key)
    wait_for(lambda: row(ready, found["lease_id"])[0] == 4, 10, "the proof")
    assert not service.accepts(key)
    assert row(ready, found["lease_id"])[1:] == (None, None)
    (proof,) = records(ready, "proof")
    assert proof["dead"] and proof["status"] == 401 and proof["code"] == "invalid_api_key"
    assert proof["lease"] == found["lease_id"] and proof["host"] == service.url.split("/")[2]
    assert 1500 <= proof["waited_ms"] <= 8000
    assert lease(ready, found["lease_id"])["proof"] == "dead"


def test_the_sealed_probe_is_for_nobody_else(ready, service):
    proven_role(ready)
    found, _ = mint(ready, "proven")
    assert not found["kept"]
    with ready.attached() as c:
        with pytest.raises(Exception, match="Sensitive"):
            c.call("ReadKey", lease_id=found["lease_id"])


def test_another_refusal_proves_nothing(ready, service):
    proven_role(ready)
    found, key = mint(ready, "proven")
    wait_for(lambda: row(ready, found["lease_id"])[0] == 2, 5, "the key to be seen alive")
    service.fault(
        kind="status", status=401, times=4, path="*/models", body={"error": {"message": "no", "code": "incorrect_hostname"}}
    )
    with ready.attached() as c:
        c.change("Revoke", lease_id=found["lease_id"])
    wait_for(lambda: len(service.control("faults")["faults"]) == 0, 10, "it to be used four times")
    wait_for(lambda: row(ready, found["lease_id"])[0] == 4, 10, "the proof")
    (proof,) = records(ready, "proof")
    assert proof["dead"] and proof["waited_ms"] > 100


def test_never_seen_alive_is_unproven(ready, service):
    proven_role(ready)
    service.fault(kind="status", status=403, times=-1, path="*/models", body="no")
    found, _ = mint(ready, "proven")
    with ready.attached() as c:
        c.change("Revoke", lease_id=found["lease_id"])
    wait_for(lambda: row(ready, found["lease_id"])[0] == 5, 10, "it to be given up")
    (proof,) = records(ready, "proof")
    assert not proof["dead"] and row(ready, found["lease_id"])[1] is None


def test_the_proof_goes_on_after_a_crash(ready, service):
    proven_role(ready)
    service.control("settings", {"revoke_ms": 3000})
    found, key = mint(ready, "proven")
    wait_for(lambda: row(ready, found["lease_id"])[0] == 2, 5, "the key to be seen alive")
    with ready.attached() as c:
        c.change("Revoke", lease_id=found["lease_id"])
    ready.kill()
    ready.start()
    wait_for(lambda: row(ready, found["lease_id"])[0] == 4, 15, "the proof")
    assert [r["dead"] for r in records(ready, "proof")] == [True]
