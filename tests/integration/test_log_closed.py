"""Nothing is done that the audit log cannot hold, and all goes on by itself once it
can: a full disk, a state that cannot be written, a broken store, an HSM that cannot
sign."""

import json
import os
import time

import pytest

from conftest import program, wait_for
from mounts import MS_RDONLY, MS_REMOUNT, fill, mount, own_mounts, unmount
from varlink import Error


def records(c, **wanted):
    found, at, more = [], 1, True
    while more:
        page = c.call("Records", **{"from": at}, **wanted)
        found += [json.loads(line) for line in page["lines"]]
        at, more = page["next"], page["more"]
    return found


def mint(c):
    return c.change("Mint", role="my-app")["lease"]


def refused(c, *names):
    with pytest.raises(Error) as e:
        mint(c)
    assert e.value.name in names, (e.value.name, e.value.text)
    return e.value


def check_intents(c, service):
    """The double served nothing that the log does not have an intent of."""
    calls = records(c, kind="call")
    outcomes = records(c, kind="outcome")
    served = service.control("counters")
    assert {o["call"] for o in outcomes} <= {r["call"] for r in calls}
    assert served["requests"] <= len(calls), (served, len(calls))
    assert served["accounts_created"] <= sum(r["purpose"] == "mint" for r in calls)


@pytest.fixture
def small(daemon_stopped):
    """The state on a file system of 48 MiB of its own."""
    d = daemon_stopped
    own_mounts()
    d.state.mkdir(mode=0o700)
    assert mount(d.state, "tmpfs", options="size=48m,mode=0700")
    d.settings["daemon"]["disk_reserve"] = "8M"
    d.settings["audit"] = {"checkpoint_seconds": "1s"}
    yield d.start().prepare()
    d.stop()
    unmount(d.state)


def test_a_full_disk(small, service):
    """Mints fail clearly, due revocations go on from the reserve with their records,
    the log is signed, and the double served nothing without intent."""
    with small.attached() as c:
        long, short = mint(c), c.change("Mint", role="my-app", ttl=5)["lease"]
        fill(small.state / "filler")
        time.sleep(1.1)  # the store looks once a second
        error = refused(c, "DiskFull")
        assert "disk" in error.text or "free" in error.text
        alive = service.alive()
        c.change("Revoke", lease_id=long["lease_id"])
        wait_for(lambda: service.alive() == alive - 2, 20, "the due revocation")
        dead = {r["lease"] for r in records(c, kind="dead")}
        assert dead == {long["lease_id"], short["lease_id"]}
        head = c.call("LogHead", sign=True)
        assert head["signed"] >= len(records(c)) - 1
        assert {a["id"] for a in c.call("Status")["status"]["alarms"]} == {"disk"}
        refused(c, "DiskFull")
        made = service.control("counters")["accounts_created"]
        (small.state / "filler").unlink()
        wait_for(lambda: try_mint(c), 10, "mints after there is space again")
        assert service.control("counters")["accounts_created"] == made + 1
        check_intents(c, service)
        assert c.call("LogHead", sign=True)["rolled_back"] is False
        wait_for(lambda: not c.call("Status")["status"]["alarms"], 20, "the end of the alarms")


def try_mint(c):
    try:
        return mint(c)
    except Error:
        return None


def test_a_full_disk_restarts(small, service):
    """It comes up on a full disk, and still ends what is due."""
    with small.attached() as c:
        lease = c.change("Mint", role="my-app", ttl=8)["lease"]
    small.stop()
    fill(small.state / "filler")
    small.start()
    with small.attached() as c:
        refused(c, "DiskFull")
        wait_for(lambda: service.alive() == 0, 20, "the due revocation")
        assert [r["lease"] for r in records(c, kind="dead")] == [lease["lease_id"]]
        (small.state / "filler").unlink()
        wait_for(lambda: try_mint(c), 10, "mints after there is space again")


def test_a_state_that_cannot_be_written(small):
    """It does not even begin; and does when it can be written again."""
    with small.attached() as c:
        lease = mint(c)
    small.stop()
    assert mount(small.state, "tmpfs", MS_REMOUNT | MS_RDONLY, "mode=0700")
    status, text = small.fails()
    assert status == 1 and "read-only" in text.lower(), text
    assert mount(small.state, "tmpfs", MS_REMOUNT, "mode=0700")
    small.start()
    with small.attached() as c:
        c.change("Revoke", lease_id=lease["lease_id"])
        mint(c)
        assert c.call("LogHead", sign=True)["rolled_back"] is False


def test_a_broken_store(ready, service):
    """The database is garbage: nothing is sent, and the copy that was right goes on."""
    with ready.attached() as c:
        mint(c)
    ready.stop()
    good = (ready.state / "store.db").read_bytes()
    ready.start()
    with ready.attached() as c:
        before = service.control("counters")["accounts_created"]
        for end in ("-wal", "-shm"):
            (ready.state / f"store.db{end}").unlink(missing_ok=True)
        with open(ready.state / "store.db", "r+b") as f:
            f.write(os.urandom(len(good)))
        refused(c, "Io", "Internal", "Schema", "Exists", "Disk")
        assert service.control("counters")["accounts_created"] == before
    ready.kill()
    for end in ("-wal", "-shm"):
        (ready.state / f"store.db{end}").unlink(missing_ok=True)
    (ready.state / "store.db").write_bytes(good)
    ready.start()
    with ready.attached() as c:
        mint(c)


@pytest.fixture
def mute(daemon_stopped):
    """An HSM that refuses its log key when it is told to."""
    d, says = daemon_stopped, daemon_stopped.place / "says"
    says.write_text("")
    d.settings["hsm.env"] |= {
        "HSM_BEHIND": d.token.module,
        "HSM_SAYS": says,
        "HSM_LOGINS": d.place / "logins",
        "HSM_MUTE": "hsmint-log",
    }
    d.settings["hsm"]["module"] = program("tests", "integration", ".libs", "lockedhsm.so")
    d.settings["audit"] = {"checkpoint_seconds": "1s"}
    d.says = says
    return d.start().prepare()


def test_an_hsm_that_cannot_sign(mute, service):
    """It is told within seconds, and over with the next checkpoint."""
    with mute.attached() as c:
        mint(c)
        mute.says.write_text("mute")
        mint(c)
        alarms = lambda: {a["id"] for a in c.call("Status")["status"]["alarms"]}
        wait_for(lambda: "log-unsigned" in alarms(), 20, "the alarm")
        with pytest.raises(Error) as e:
            c.call("LogHead", sign=True)
        assert e.value.name == "HsmFailed", e.value.text
        mute.says.write_text("")
        wait_for(lambda: "log-unsigned" not in alarms(), 20, "its end")
        kinds = [r["kind"] for r in records(c)]
        assert kinds.count("checkpoint-failed") == 1 and "forced-stop" not in kinds
        head = c.call("LogHead", sign=True)
        assert head["signed"] == head["size"]


@pytest.mark.skipif(not os.environ.get("HSMINT_LONG"), reason="takes a minute: make check-long")
def test_an_hsm_that_cannot_sign_for_long(mute, service):
    """After a minute no call is made; then all goes on by itself, and the log tells."""
    with mute.attached() as c:
        mint(c)
        mute.says.write_text("mute")
        mint(c)
        error = wait_for(lambda: error_of_mint(c), 90, "a refusal")
        assert error.name == "NotLogged", error.text
        made = service.control("counters")["accounts_created"]
        assert error_of_mint(c).name == "NotLogged"
        assert service.control("counters")["accounts_created"] == made
        mute.says.write_text("")
        wait_for(lambda: try_mint(c), 30, "mints once it signs again")
        kinds = [r["kind"] for r in records(c)]
        for kind in ("checkpoint-failed", "forced-stop", "forced-end"):
            assert kinds.count(kind) == 1, kinds
        check_intents(c, service)
        assert c.call("LogHead", sign=True)["rolled_back"] is False


def error_of_mint(c):
    try:
        mint(c)
        time.sleep(0.5)
        return None
    except Error as e:
        return e
