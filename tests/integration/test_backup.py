"""The state in one file, and what a daemon does that is not sure of its state: a backup of
before, a copy beside the original, a state that is lost."""

import json
import os
import re
import shutil
import stat
import subprocess
import threading

import pytest

from conftest import PROJECT, Daemon, program, wait_for
from test_reconcile import alarms, finished, found, lease, mint, reconcile
from varlink import Error, request_id


def hsmint(daemon, *words, status=0, seconds=60):
    r = subprocess.run(
        [program("hsmint"), *words],
        env={**os.environ, "HSMINT_SOCKET": str(daemon.socket), "HSMINT_CONFIG": str(daemon.config)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert r.returncode == status, (words, r.returncode, r.stdout, r.stderr)
    return r.stdout + r.stderr


def restore(daemon, file, status=0):
    return hsmint(daemon, "restore", file, "--state", daemon.state, status=status)


def test_backup_and_restore(ready, service):
    """Made while mints go on; refused where it would do harm; what came after it lives, is
    reported, and is adopted: known again, it ends with its key."""
    d, file = ready, ready.place / "backup"
    old = mint(d)[0]
    stop, threads = threading.Event(), []

    def mints():
        while not stop.is_set():
            mint(d)

    threads = [threading.Thread(target=mints) for _ in range(2)]
    for t in threads:
        t.start()
    assert "bytes of state" in hsmint(d, "backup", file)
    stop.set()
    for t in threads:
        t.join()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "choose another name" in hsmint(d, "backup", file, status=1)
    assert not list(d.state.glob("backup-*")) and not list(d.place.glob("*.part"))
    # Random bytes of blobs may well have a shorter beginning of a key.
    assert not re.search(rb"sk-(admin|svcacct|proj)-", file.read_bytes())

    new, key = mint(d, ttl=600)
    dead = mint(d)[0]
    with d.attached() as c:
        c.change("Revoke", lease_id=dead["lease_id"])
    assert "a daemon runs on" in restore(d, file, status=1)
    d.stop()
    before = service.alive()
    kept = (d.state / "store.db").read_bytes()

    # What was cut or changed is refused, and the state is as it was.
    whole = file.read_bytes()
    at = whole.index(b"\n", 20) + 1
    for bad in (whole[:-1], whole + b"x", whole[: at + 5000] + b"!" + whole[at + 5001 :], whole[:40], b"", b"x" * 9000):
        (d.place / "bad").write_bytes(bad)
        restore(d, d.place / "bad", status=1)
    assert (d.state / "store.db").read_bytes() == kept and not list(d.state.glob("restore-*"))

    said = restore(d, file)
    (beside,) = d.state.glob("store.db.before-*")
    assert str(beside) in said and stat.S_IMODE((d.state / "store.db").stat().st_mode) == 0o600
    d.start()
    assert "state-restored" in alarms(d)
    assert lease(d, old["lease_id"])["state"] == "active"
    with pytest.raises(Error) as e, d.attached() as c:
        c.call("GetLease", lease_id=new["lease_id"])
    assert e.value.name == "NotFound"
    report = reconcile(d)  # as the timer's
    assert report["report_only"] and report["reason"] and ("unknown-ours", new["service_account_id"]) in found(report)
    assert service.alive() == before and service.accepts(key)

    # The log on the HSM is ahead of this one: that is looked at first.
    wait_for(lambda: "log-rolled-back" in alarms(d), 15, "the rollback to be noticed")
    with pytest.raises(Error) as e:
        reconcile(d, adopt=True)
    assert e.value.name == "RolledBack" and "accept-rollback" in e.value.text
    with d.attached() as c:
        c.change("AcceptRollback", reason="restored in a test")
    assert reconcile(d)["report_only"] and service.alive() == before
    report = reconcile(d, adopt=True)
    assert report["complete"] and not report["report_only"] and report["revoking"] == 0
    adopted = [f for f in report["findings"] if f["action"] == "adopt"]
    assert len(adopted) == report["adopted"] and new["service_account_id"] in {f["account_id"] for f in adopted}
    assert "state-restored" not in alarms(d)
    with d.attached() as c:
        leases = c.call("ListLeases", all=True, live=True)["leases"]
    (again,) = [l for l in leases if l["service_account_id"] == new["service_account_id"]]
    assert abs(again["expires_ms"] - new["expires_ms"]) < 5000 and again["state"] == "active"
    assert service.accepts(key) and service.alive() == before
    # From here on it is as ever: known, and revoked on demand.
    assert found(reconcile(d)) == []
    with d.attached() as c:
        c.change("Revoke", lease_id=again["lease_id"])
    assert not service.accepts(key)


class Copy(Daemon):
    """A snapshot of another's state, on the same token and service."""

    def __init__(self, original):
        place = original.place / "elsewhere"
        place.mkdir()
        super().__init__(place, original.token, original.service)
        shutil.copytree(original.state, self.state)
        shutil.rmtree(self.state / "keeper", ignore_errors=True)


def test_a_snapshot_beside_the_original(ready, service):
    """Neither revokes what the other minted, whichever looks first: the copy sees that its
    database was moved, the original that the log on the HSM is not its own any more."""
    early, early_key = mint(ready)
    copy = Copy(ready)
    copy.start()
    try:
        assert "state-restored" in alarms(copy)
        ours, our_key = mint(ready)
        theirs, their_key = mint(copy)
        for d in (copy, ready, copy, ready):
            report = reconcile(d)
            assert report["revoking"] == report["closed"] == report["adopted"] == 0, report
            assert report["report_only"] or found(report) == []
        ids = {i for _, i in found(reconcile(ready))}
        assert ids == {theirs["service_account_id"]}
        ids = {i for _, i in found(reconcile(copy))}
        assert ids == {ours["service_account_id"]}
        assert all(service.accepts(k) for k in (early_key, our_key, their_key))
        # Each still ends its own.
        with ready.attached() as c:
            c.change("Revoke", lease_id=ours["lease_id"])
        assert not service.accepts(our_key) and service.accepts(their_key)
    finally:
        copy.end()


def test_a_lost_state(ready, service):
    """No backup, an empty directory: the keys on the HSM are enough to know what is ours."""
    d = ready
    adopted, key = mint(d, ttl=600)
    foreign = service.control("service_accounts", {"project": PROJECT, "name": "somebody-else"})
    d.stop()
    shutil.rmtree(d.state)
    d.start()
    with pytest.raises(Error) as e, d.attached() as c:
        c.change("Init")
    assert e.value.name == "HsmKeys"
    assert hsmint(d, "init", "--recover")
    assert "state-restored" in alarms(d)
    with d.attached() as c:
        c.change(
            "SetConfig",
            secret=service.admin_key.encode(),
            fields={"api_endpoint": service.url, "organization_id": "org-adminsim"},
        )
    wait_for(lambda: "log-rolled-back" in alarms(d), 15, "the lost log to be noticed")
    report = reconcile(d)
    assert report["report_only"] and found(report) == [("unknown-ours", adopted["service_account_id"])]
    assert service.accepts(key)
    with d.attached() as c:
        c.change("AcceptRollback", reason="the disk was lost")
    report = reconcile(d, revoke=True)
    assert report["revoking"] == 1 and not report["report_only"]
    wait_for(lambda: {a["id"] for a in service.accounts()} == {foreign["id"]}, 10, "what is ours to go")
    assert not service.accepts(key) and "state-restored" not in alarms(d)
