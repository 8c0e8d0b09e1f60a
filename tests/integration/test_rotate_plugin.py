"""The six faults of rotation that a known plugin has, each by name and none of them here
(spec/models/rotate-plugin.pml has its order of steps); and one rotation at a time, whoever
asks."""

import threading

import pytest

from clocks import set_clock, spawn_with_clock
from conftest import Daemon, wait_for
from test_rotate import KEYS, ONE_KEY, alive, key_id, mints, rotate, settled, under_way
from varlink import Error


@pytest.fixture
def daemon(daemon_stopped):
    daemon_stopped.settings["hsm"]["deadline"] = "1s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "2s"}
    return daemon_stopped.start()


class Aside(threading.Thread):
    """function() meanwhile; what came of it."""

    def __init__(self, function, *arguments):
        super().__init__()
        self.function, self.arguments, self.result, self.error = function, arguments, None, None
        self.start()

    def run(self):
        try:
            self.result = self.function(*self.arguments)
        except (Error, OSError, EOFError) as e:
            self.error = e


def held(service):
    wait_for(lambda: service.control("holds")["held"], 10, "the call to be held")


def test_a_create_that_times_out_leaves_no_orphan(ready, service):
    old = key_id(ready)
    service.fault(kind="hang", when="after", ms=3000, method="POST", path=KEYS)
    with pytest.raises(Error) as e:
        rotate(ready)
    assert e.value.name == "ServiceUnknown" and len(alive(service)) == 2
    wait_for(lambda: key_id(ready) != old, 30, "the rotation to begin again")
    settled(ready, service)


def test_a_new_key_that_does_not_work_is_deleted(daemon_stopped, service):
    spawn_with_clock(daemon_stopped)
    daemon_stopped.prepare()
    old = key_id(daemon_stopped)
    service.fault(kind="status", status=401, method="GET", path=KEYS, times=-1)
    rotating = Aside(rotate, daemon_stopped)
    wait_for(lambda: (under_way(daemon_stopped) or {}).get("state") == "prove", 10, "it to be tried")
    assert len(alive(service)) == 2
    set_clock(daemon_stopped, 61, 61)  # for so long a fresh key may be refused
    rotating.join(30)
    assert "not accepted" in str(rotating.error)
    service.control("faults", method="DELETE")
    settled(daemon_stopped, service)
    assert key_id(daemon_stopped) == old


def test_killed_between_create_and_save_loses_no_key(ready, service):
    """Its value is lost: it is deleted, and another is made."""
    old = key_id(ready)
    service.fault(kind="hold", when="after", method="POST", path=KEYS)
    rotating = Aside(rotate, ready)
    held(service)
    (lost,) = set(alive(service)) - {old}
    ready.kill()
    service.control("holds", method="DELETE")
    rotating.join(30)
    ready.start()
    assert key_id(ready) == old
    mints(ready)
    wait_for(lambda: key_id(ready) != old, 30, "the rotation to begin again")
    settled(ready, service)
    assert key_id(ready) != lost


def test_a_delete_that_fails_forgets_no_key(ready, service):
    service.fault(kind="status", status=500, method="DELETE", path=ONE_KEY, times=-1)
    old = rotate(ready)["retiring"]
    wait_for(lambda: under_way(ready)[0]["tries"] > 0, 20, "the DELETE to fail")
    ready.kill()
    ready.start()
    assert [r["old"] for r in under_way(ready)] == [old] and old in alive(service)
    service.control("faults", method="DELETE")
    settled(ready, service)


def test_two_at_once_forget_no_key(ready, service):
    """Whoever asks: the second comes after the first, with its key."""
    asked = [Aside(rotate, ready) for _ in range(6)]
    for a in asked:
        a.join(60)
    rotated = [a.result for a in asked if a.result]
    assert rotated and all(a.error.name == "Exists" for a in asked if a.error)
    assert len({r["retiring"] for r in rotated}) == len({r["admin_api_key_id"] for r in rotated}) == len(rotated)
    settled(ready, service)


def test_the_old_key_lives_while_a_call_is_in_flight(ready, service):
    service.fault(kind="hold", method="POST", path="*/service_accounts")
    minting = Aside(mints, ready)
    held(service)
    old = rotate(ready)["retiring"]
    service.control("holds", method="DELETE")
    minting.join(30)
    assert minting.result, minting.error
    assert service.accepts(minting.result)
    wait_for(lambda: old not in alive(service), 30, "the old key's end")
    settled(ready, service)


def test_two_daemons_one_rotation(ready, service, token):
    """A second one does not start beside the first; after its end, it goes on with its rotation."""
    other_place = ready.place / "other"
    other_place.mkdir()
    other = Daemon(other_place, token, service)
    other.settings["daemon"]["state_dir"] = other.state = ready.state
    other.settings["hsm"] |= ready.settings["hsm"]
    other.settings["service"] = ready.settings["service"]
    old = key_id(ready)
    service.fault(kind="hold", method="POST", path=KEYS)
    rotating = Aside(rotate, ready)
    held(service)
    status, said = other.fails()
    assert status and "another" in said, said
    ready.kill()
    other.start()
    try:
        service.control("holds", method="DELETE")
        rotating.join(30)
        wait_for(lambda: key_id(other) != old, 40, "the rotation to begin again")
        settled(other, service)
    finally:
        other.end()


# ---- a wall clock that leaps ----


@pytest.fixture
def leaping(daemon_stopped):
    daemon_stopped.settings["hsm"]["deadline"] = "1s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s"}
    spawn_with_clock(daemon_stopped)
    return daemon_stopped.prepare()


def test_a_clock_that_is_set_back_keeps_no_old_key_alive(leaping, service):
    """Nor across a restart."""
    for restarts in (False, True):
        rotate(leaping)
        if restarts:
            leaping.kill()
        set_clock(leaping, -86400 * (1 + restarts))
        if restarts:
            spawn_with_clock(leaping, -2 * 86400)
        settled(leaping, service, 20)
        wait_for(lambda: not under_way(leaping), 30, "the rotation to end")


def test_a_clock_that_is_set_forward_ends_no_search(leaping, service):
    """A POST is still under way: its key is found, whatever the wall clock says."""
    service.fault(kind="hang", ms=4000, method="POST", path=KEYS)
    with pytest.raises(Error) as e:
        rotate(leaping)
    assert e.value.name == "ServiceUnknown" and len(alive(service)) == 1
    set_clock(leaping, 300)
    wait_for(lambda: len(alive(service)) == 2, 10, "the key that is made late")
    settled(leaping, service)
