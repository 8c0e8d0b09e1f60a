"""When admin keys rotate: the first one at once, then by period or schedule, under a wall
clock that is moved; and what becomes of keys that others gave, knew, or that do not die."""

import time

import pytest

from conftest import not_sanitized, program, wait_for
from test_rotate import ONE_KEY, alive, key_id, mints, rotate, settled, under_way
from varlink import Error

DAY = 86400


@pytest.fixture
def daemon(daemon_stopped):
    daemon_stopped.settings["hsm"]["deadline"] = "1s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s"}
    return daemon_stopped.start()


def config(daemon):
    with daemon.attached() as c:
        return c.call("GetConfig")["config"]


def change(daemon, secret=None, fields=None, **parameters):
    with daemon.attached(timeout=60) as c:
        return c.change("SetConfig", secret=secret and secret.encode(), fields=fields or {}, **parameters)


def give(daemon, service, value=None, **parameters):
    fields = {"api_endpoint": service.url, "organization_id": "org-adminsim"}
    return change(daemon, value or service.admin_key, fields, **parameters)


def new_key(service, **fields):
    return service.control("admin_keys", {"name": "by-hand"} | fields)


# ---- the first key ----


def test_the_first_key_rotates_at_once(daemon, service):
    """A person has seen it."""
    with daemon.attached() as c:
        c.change("Init")
    reply = give(daemon, service)
    assert "took the place" in " ".join(reply["warnings"])
    assert not reply["config"]["admin_api_key_by_hand"] and reply["config"]["rotation_cause"] == ""
    (first,) = [k["id"] for k in service.control("state")["admin_keys"] if k["id"] != key_id(daemon)]
    assert reply["config"]["admin_api_key_id"] == key_id(daemon) != first
    with daemon.attached() as c:
        c.change("SetRole", name="my-app", fields={"project_id": "proj_abc", "ttl": 3600})
    settled(daemon, service)
    status, _ = service.request("GET", f"{service.url}/organization/projects", bearer=service.admin_key)
    assert status == 401


def test_the_first_key_is_kept_when_asked(ready, service):
    shown = config(ready)
    assert shown["admin_api_key_by_hand"] and alive(service) == [shown["admin_api_key_id"]]
    ready.kill()
    ready.start()
    assert key_id(ready) == shown["admin_api_key_id"]


def test_a_first_key_that_cannot_be_replaced_yet(daemon, service):
    """It is in use, and replaced as soon as the service lets us."""
    with daemon.attached() as c:
        c.change("Init")
    service.fault(kind="status", status=403, method="POST", path="*/admin_api_keys", times=1)
    reply = give(daemon, service)
    assert "goes on trying" in " ".join(reply["warnings"])
    shown = config(daemon)
    assert shown["admin_api_key_by_hand"] and shown["rotation_cause"] == "first"
    daemon.kill()
    daemon.start()
    wait_for(lambda: not config(daemon)["admin_api_key_by_hand"], 30, "the first key to be replaced")
    wait_for(lambda: alive(service) == [key_id(daemon)], 30, "it to be gone")


# ---- by hand ----


def test_a_key_by_hand_retires_ours(ready, service):
    rotate(ready)
    ours = key_id(ready)
    third = new_key(service)
    give(ready, service, third["value"], keep_first=True)
    wait_for(lambda: not under_way(ready), 30, "ours to be gone")
    assert key_id(ready) == third["id"] and ours not in alive(service)
    # A person's is kept, and named; or not, as asked.
    fourth, fifth = new_key(service), new_key(service)
    reply = give(ready, service, fourth["value"], keep_first=True)
    assert f"{third['id']}, which was in use before, stays" in " ".join(reply["warnings"])
    give(ready, service, fifth["value"], keep_first=True, old="retire")
    wait_for(lambda: not under_way(ready), 30, "the fourth to be gone")
    assert sorted(alive(service)) == sorted([third["id"], fifth["id"]])
    with pytest.raises(Error) as e:
        give(ready, service, fifth["value"], old="burn")
    assert e.value.name == "Invalid"
    mints(ready)


def test_a_compromised_key_is_not_waited_for(ready, service):
    """Calls in flight do not save it."""
    rotate(ready)
    wait_for(lambda: not under_way(ready), 30, "the first rotation to end")
    known = key_id(ready)
    with ready.attached(timeout=60) as c:
        assert c.change("RotateConfig", compromised=True)["retiring"] == known
    began = time.monotonic()
    wait_for(lambda: known not in alive(service), 3, "the key to be deleted")
    print(f"# deleted {time.monotonic() - began:.2f} s after the answer; the overlap is 5 s otherwise")
    settled(ready, service)


def test_a_key_that_does_not_go_holds_nothing_up(ready, service):
    """The service lets no key go: the next rotations take place all the same."""
    service.fault(kind="status", status=500, method="DELETE", path=ONE_KEY, times=-1)
    ids = {key_id(ready)}
    for _ in range(3):
        rotate(ready)
        ids.add(key_id(ready))
    assert len(ids) == 4 and sorted(alive(service)) == sorted(ids)
    assert sorted(r["old"] for r in config(ready)["retiring"]) == sorted(ids - {key_id(ready)})
    with ready.attached() as c, pytest.raises(Error) as e:
        c.change("DeleteConfig")
    assert "under way" in str(e.value)
    ready.kill()
    ready.start()
    service.control("faults", method="DELETE")
    settled(ready, service)


# ---- under a clock that is moved ----


class Clock:
    """The service's clock goes with the daemon's."""

    def __init__(self, daemon):
        not_sanitized("a sanitizer wants to be loaded first")
        self.daemon, self.days = daemon, 0.0
        self.file = daemon.place / "off"
        self.start()

    def start(self):
        shim = program("tests", "integration", ".libs", "clockstep.so")
        self.to(self.days)
        self.daemon.spawn(env={"LD_PRELOAD": str(shim), "CLOCKSTEP": str(self.file), "HSMINTD_ENVIRONMENT": "own"})
        wait_for(self.daemon.answers, 15)

    def to(self, days):
        self.days = days
        self.file.write_text(str(int(days * DAY * 1000)))
        self.daemon.service.control("settings", {"clock_offset_s": int(days * DAY)})

    def look(self):
        """The daemon looks what is due whenever a setting changes."""
        change(self.daemon)


@pytest.fixture
def clock(daemon_stopped, service):
    daemon_stopped.settings["hsm"]["deadline"] = "1s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s"}
    clock = Clock(daemon_stopped)
    daemon_stopped.prepare()
    return clock


def rotates(clock, service, cause):
    old = key_id(clock.daemon)
    assert config(clock.daemon)["rotation_cause"] == cause
    clock.look()
    wait_for(lambda: key_id(clock.daemon) != old, 20, f"a rotation by {cause}")
    settled(clock.daemon, service)


def stays(clock):
    old = key_id(clock.daemon)
    clock.look()
    time.sleep(1)
    assert key_id(clock.daemon) == old


def test_a_period_and_outages(clock, service):
    daemon = clock.daemon
    shown = change(daemon, fields={"rotation_period": "720h"})["config"]
    assert shown["next_rotation"] and shown["rotation_cause"] == "period"
    clock.to(29.9)
    stays(clock)
    clock.to(30.1)
    rotates(clock, service, "period")
    # Its end is 120 days beyond the next rotation: an outage of 60 days is survived.
    life = config(daemon)["admin_api_key_expires_ms"] / 1000 - time.time()
    assert abs(life / DAY - 30 - 150) < 1
    daemon.stop()
    clock.to(90)
    clock.start()
    rotates(clock, service, "period")
    # Switched off, nothing rotates, and a new key would have no end.
    assert change(daemon, fields={"disable_automated_rotation": True})["config"]["next_rotation"] is None
    clock.to(200)
    stays(clock)
    rotate(daemon)
    assert config(daemon)["admin_api_key_expires_ms"] == 0


def test_a_schedule_with_a_window(clock, service):
    """Mondays at three, for two hours: what was missed waits for the next Monday."""
    daemon = clock.daemon
    now = time.time()
    monday = (now // DAY - (now // DAY + 3) % 7) * DAY + 3 * 3600  # of this week; 1970 began on a Thursday

    def to(when):
        clock.to((when - now) / DAY)

    to(monday + 7 * DAY - 60)
    change(daemon, fields={"rotation_schedule": "0 3 * * 1", "rotation_window": "2h"})
    stays(clock)
    to(monday + 7 * DAY + 60)
    rotates(clock, service, "schedule")
    daemon.stop()
    to(monday + 14 * DAY + 3 * 3600)  # an hour after the window
    clock.start()
    stays(clock)
    with daemon.attached() as c:
        status = c.call("Status")["status"]
    assert "rotation-overdue" in [a["id"] for a in status["alarms"]]
    to(monday + 21 * DAY + 3600)
    rotates(clock, service, "schedule")


def test_a_longer_schedule_rotates_first(clock, service):
    daemon = clock.daemon
    change(daemon, fields={"rotation_period": "30d"})
    rotate(daemon)
    old = key_id(daemon)
    change(daemon, fields={"rotation_period": "300d"})
    wait_for(lambda: key_id(daemon) != old, 20, "a rotation before the long wait")
    settled(daemon, service)
    left = config(daemon)["admin_api_key_expires_ms"] / 1000 - time.time()
    assert left > 360 * DAY


def test_an_expired_key_is_a_state_with_a_way_out(ready, service):
    """Leases stay; another key by hand, and all goes on."""
    mints(ready)
    short = new_key(service, expires_in_seconds=2)
    give(ready, service, short["value"], keep_first=True)
    wait_for(lambda: config(ready)["admin_api_key_state"] == "expired", 10, "its end")
    with ready.attached() as c:
        with pytest.raises(Error) as e:
            c.change("RotateConfig")
        assert e.value.name == "ServiceAuth" and "config set admin_api_key=-" in str(e.value)
        assert len(c.call("ListLeases", all=True, live=True)["leases"]) == 1
    give(ready, service, keep_first=True)
    assert config(ready)["admin_api_key_state"] == "current"
    mints(ready)
