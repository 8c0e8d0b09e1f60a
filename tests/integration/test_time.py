"""Leases end when they should, whatever happens to the clocks."""

import json
import sqlite3
import time

import pytest

from clocks import set_clock, spawn_with_clock
from conftest import patience, wait_for

YEAR = 365 * 86400


def mint(daemon, role="my-app", **parameters):
    with daemon.attached() as c:
        reply = c.change("Mint", role=role, **parameters)
        return reply["lease"], reply.secret.decode()


def lease(daemon, id):
    with daemon.attached() as c:
        return c.call("GetLease", lease_id=id)["lease"]


def records(daemon, kind):
    with sqlite3.connect(f"file:{daemon.state}/store.db?mode=ro", uri=True) as db:
        lines = [json.loads(line) for (line,) in db.execute("SELECT line FROM record ORDER BY sequence")]
    db.close()
    return [r for r in lines if r["kind"] == kind]


def alarms(daemon):
    with daemon.attached() as c:
        return [(a["id"], a["object"]) for a in c.call("Status")["status"]["alarms"]]


# ---- clocks ----


def test_the_wall_clock_moves_no_lease(daemon_stopped, service):
    """A year forward, a year back, right again; and a restart in the same boot."""
    daemon = spawn_with_clock(daemon_stopped).prepare()
    long, long_key = mint(daemon)
    for year in (YEAR, -YEAR):
        short, short_key = mint(daemon, ttl=3)
        began = time.monotonic()
        set_clock(daemon, year)
        time.sleep(1.5)
        assert service.accepts(long_key) and service.accepts(short_key)
        wait_for(lambda: not service.accepts(short_key), 10, "the short lease to end")
        assert 2.5 <= time.monotonic() - began <= 5.5
        # What is shown is as the wall clock would have it.
        shown = lease(daemon, long["lease_id"])
        assert abs(shown["expires_ms"] - long["expires_ms"] - year * 1000) < 3000
        assert 3580 <= shown["lease_duration"] <= 3600
        daemon.stop()
        spawn_with_clock(daemon, year)
        assert lease(daemon, long["lease_id"])["state"] == "active"
    leaps = [r["jump_ms"] for r in records(daemon, "clock")]
    assert len(leaps) == 2 and abs(leaps[0] - YEAR * 1000) < 2000 and abs(leaps[1] + 2 * YEAR * 1000) < 2000
    set_clock(daemon, 0)
    time.sleep(1.5)
    assert lease(daemon, long["lease_id"])["state"] == "active" and service.accepts(long_key)


def test_a_suspended_machine(daemon_stopped, service):
    """Its time counts: what ended meanwhile dies when it wakes up."""
    daemon = spawn_with_clock(daemon_stopped).prepare()
    first, key = mint(daemon, ttl=600)
    later, later_key = mint(daemon, ttl=1800)
    set_clock(daemon, 590, 590)
    time.sleep(1.5)
    assert service.accepts(key)
    set_clock(daemon, 601, 601)
    wait_for(lambda: not service.accepts(key), 3, "the lease to end")
    assert service.accepts(later_key)
    assert records(daemon, "clock") == []


@pytest.mark.parametrize("expiry", ["honour", "ignore"])
def test_an_hour_down(daemon_stopped, service, expiry, capsys):
    """The service ends the keys by itself, or the daemon does as soon as it is back."""
    service.control("settings", {"expiry": expiry})
    daemon = spawn_with_clock(daemon_stopped).prepare()
    keys = [mint(daemon, ttl=600)[1] for _ in range(20)]
    daemon.kill()
    service.control("settings", {"clock_offset_s": 3600})
    assert [service.accepts(k) for k in keys] == [expiry == "ignore"] * 20
    began = time.monotonic()
    spawn_with_clock(daemon, 3600, 3600)
    answered = time.monotonic()
    wait_for(lambda: not any(service.accepts(k) for k in keys), 10, "all to die")
    dead = time.monotonic()
    wait_for(lambda: service.alive() == 0, 10, "the accounts to go")
    gone = time.monotonic()
    with capsys.disabled():
        print(f"# an hour down ({expiry}): keys dead {dead - began:.2f} s, accounts gone {gone - began:.2f} s after the start")
    assert dead - answered < patience(2) and gone - answered < patience(2)


def reboot(daemon):
    """The store as it is after another boot of the kernel."""
    daemon.stop()
    with sqlite3.connect(daemon.state / "store.db") as db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
        saved = json.loads(text)
        saved["boot"] = "another"
        db.execute("UPDATE meta SET value = ? WHERE key = 'clock'", (json.dumps(saved).encode(),))
    db.close()


def test_started_again_with_the_time_gone_on(daemon_stopped, service):
    daemon = spawn_with_clock(daemon_stopped).prepare()
    over, over_key = mint(daemon, ttl=600)
    live, live_key = mint(daemon, ttl=7200)
    time.sleep(1.2)  # the time is saved once leases live
    reboot(daemon)
    spawn_with_clock(daemon, 3600, 5)
    wait_for(lambda: not service.accepts(over_key), 5, "what is over to end")
    assert service.accepts(live_key)
    assert 3500 <= lease(daemon, live["lease_id"])["lease_duration"] <= 3600
    assert ("clock-stepped", "restart") not in alarms(daemon)


def test_started_again_with_an_earlier_time(daemon_stopped, service):
    """How long it was down is not known: what lived before ends."""
    daemon = spawn_with_clock(daemon_stopped).prepare()
    old, old_key = mint(daemon, ttl=7200)
    time.sleep(1.2)
    reboot(daemon)
    spawn_with_clock(daemon, -3600, 5)
    wait_for(lambda: not service.accepts(old_key), 5, "the old lease to end")
    assert lease(daemon, old["lease_id"])["reason"] == "clock"
    assert ("clock-stepped", "restart") in alarms(daemon)
    new, new_key = mint(daemon, ttl=7200)
    time.sleep(1.5)
    assert service.accepts(new_key) and lease(daemon, new["lease_id"])["state"] == "active"
