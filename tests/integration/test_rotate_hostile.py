"""Rotations against services that lie, HSMs that fail, clocks that leap and people who change
their minds: the key that works is never lost, and none of ours but it is left."""

import contextlib
import threading
import time

import pytest

from clocks import set_clock, spawn_with_clock
from conftest import wait_for
from mounts import MS_BIND, MS_RDONLY, MS_REMOUNT, bind, mount, own_mounts, unmount
from test_backup import hsmint, restore
from test_reconcile import reconcile
from test_rotate import KEYS, ONE_KEY, alive, key_id, mints, rotate, settled, under_way
from test_rotate_when import change, config, give, new_key
from varlink import Error


@pytest.fixture
def daemon(daemon_stopped):
    daemon_stopped.settings["hsm"]["deadline"] = "1s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s"}
    return daemon_stopped.start()


def moved(daemon):
    """Ready, with a clock of the test's."""
    daemon.settings["hsm"]["deadline"] = "1s"
    daemon.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s"}
    return spawn_with_clock(daemon).prepare()


def idle(daemon, seconds=40):
    wait_for(lambda: not under_way(daemon), seconds, "the rotation to end")


# ---- a store that is older than the HSM ----


def test_a_restored_store_keeps_the_key_of_the_hsm(ready, service):
    """The backup knows the key before the last rotation; the HSM has the one that works."""
    d, file = ready, ready.place / "backup"
    rotate(d)
    idle(d)
    hsmint(d, "backup", file)
    rotate(d)
    idle(d)
    (works,) = alive(service)
    d.stop()
    restore(d, file)
    d.start()
    mints(d)
    wait_for(lambda: key_id(d) == works, 10, "the HSM's key in the configuration")
    with d.attached() as c:
        c.change("AcceptRollback", reason="restored in a test")
    reconcile(d, revoke=True)
    assert alive(service) == [works]
    mints(d)
    assert rotate(d)["retiring"] == works
    settled(d, service)


def test_an_hsm_that_stores_nothing_keeps_nobody_from_a_new_key(ready, service):
    """The store has it; the HSM's copy comes once it can be written. The key before was at its
    end: nothing else works."""
    d = ready
    own_mounts()
    d.kill()
    d.start()
    assert bind(d.token.directory)
    assert mount(d.token.directory, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)
    old = key_id(d)
    given = new_key(service)
    service.control(f"keys/{old}", {"expire": True})
    give(d, service, given["value"], keep_first=True)
    assert key_id(d) == given["id"]
    mints(d)
    assert mount(d.token.directory, "none", MS_BIND | MS_REMOUNT)
    rotate(d)
    idle(d)
    d.kill()
    unmount(d.token.directory)
    d.start()
    mints(d)


# ---- a service that lies ----


def test_a_new_key_with_the_id_of_the_old_one(ready, service):
    """Were it believed, the new key's true id would be lost, or the old key."""
    old = key_id(ready)
    service.fault(kind="set", fields={"id": old}, method="POST", path=KEYS)
    with pytest.raises(Error) as e:
        rotate(ready)
    assert e.value.name == "ServiceReply", e.value
    wait_for(lambda: key_id(ready) != old and not under_way(ready), 40, "the rotation to end")
    settled(ready, service)


def test_a_new_key_with_the_id_of_one_that_is_to_go(ready, service):
    service.fault(kind="status", status=500, method="DELETE", path=ONE_KEY, times=-1)
    going = rotate(ready)["retiring"]
    current = key_id(ready)
    service.fault(kind="set", fields={"id": going}, method="POST", path=KEYS)
    with pytest.raises(Error) as e:
        rotate(ready)
    assert e.value.name == "ServiceReply", e.value
    service.control("faults", method="DELETE")
    wait_for(lambda: key_id(ready) != current and not under_way(ready), 40, "the rotations to end")
    settled(ready, service)


def test_a_list_of_pages_that_goes_round(ready, service):
    """Neither asked for ever nor taken for an answer."""
    old = key_id(ready)
    for n in range(30):
        new_key(service)
    ask = "*/admin_api_keys"
    service.fault(kind="drop", method="POST", path=KEYS)
    service.fault(kind="set", fields={"has_more": True, "last_id": old}, method="GET", path=ask, times=40)
    with pytest.raises(Error):
        rotate(ready)
    wait_for(lambda: under_way(ready) and under_way(ready)["tries"] > 1, 20, "a look")
    seen = service.control("counters")["requests"]
    time.sleep(3)
    assert service.control("counters")["requests"] - seen < 30
    service.control("faults", method="DELETE")
    wait_for(lambda: key_id(ready) != old and not under_way(ready), 60, "the rotation to end")


def test_a_lost_key_is_found_among_many(ready, service):
    """On the third page."""
    old = key_id(ready)
    for n in range(230):
        new_key(service)
    service.fault(kind="drop", method="POST", path=KEYS)
    with pytest.raises(Error):
        rotate(ready)
    wait_for(lambda: key_id(ready) != old and not under_way(ready), 60, "the rotation to end")
    assert len(alive(service)) == 231
    mints(ready)


def test_a_key_that_was_deleted_and_lives_is_deleted_again(daemon_stopped, service):
    """The service said 200, and did nothing."""
    d = moved(daemon_stopped)
    service.fault(kind="status", status=200, body={"deleted": True}, method="DELETE", path=ONE_KEY)
    old = rotate(d)["retiring"]
    wait_for(lambda: [r["state"] for r in under_way(d)] == ["confirm"], 20, "its end to be confirmed")
    assert old in alive(service)
    set_clock(d, 70, 70)
    settled(d, service)


def test_a_lost_key_that_is_not_listed_yet(daemon_stopped, service):
    """For half a minute the service denies what it has made."""
    d = moved(daemon_stopped)
    old = key_id(d)
    service.control("settings", {"visibility_ms": 30000, "visibility_delete": True})
    service.fault(kind="drop", method="POST", path=KEYS)
    with pytest.raises(Error):
        rotate(d)
    for s in range(10, 110, 10):
        set_clock(d, s, s)
        service.control("settings", {"clock_offset_s": s})
        time.sleep(0.7)
    idle(d, 60)
    assert key_id(d) != old
    settled(d, service)


def test_a_401_that_comes_and_goes(ready, service):
    """For anybody, now and then: no key is taken for dead that lives."""
    stop = threading.Event()

    def refuse():
        while not stop.wait(0.4):
            service.fault(kind="status", status=401)

    refusing = threading.Thread(target=refuse)
    refusing.start()
    for _ in range(3):
        with contextlib.suppress(Error):
            rotate(ready)
    stop.set()
    refusing.join()
    service.control("faults", method="DELETE")
    idle(ready, 60)
    settled(ready, service)


def test_a_page_that_is_no_list_proves_nothing(ready, service):
    """A proxy answers 200 to everything."""
    old = key_id(ready)
    service.fault(kind="not_json", status=200, method="GET", path=KEYS, times=4)
    rotate(ready)
    assert service.control("counters")["faults_pending"] == 0
    assert key_id(ready) != old
    settled(ready, service)


def test_a_capped_life_is_told_and_mended(ready, service):
    """The service's policy allows keys 60 days; ours would live for 150."""
    service.control("settings", {"max_expiry_s": 60 * 86400})
    change(ready, fields={"rotation_period": "30d"})
    with pytest.raises(Error) as e:
        rotate(ready)
    assert e.value.name == "ServiceRefused", e.value
    change(ready, fields={"rotation_slack": "20d"})
    rotate(ready)
    settled(ready, service)


# ---- two of our organisations are one to the service ----


def test_a_key_that_another_organisation_uses_stays(ready, service):
    """It goes when that one has its own."""
    with ready.attached() as c:
        c.change("Init", org="second")
    give(ready, service, org="second", keep_first=True)
    shared = key_id(ready)
    rotate(ready)
    idle(ready)
    assert sorted(alive(service)) == sorted([shared, key_id(ready)])
    with ready.attached(timeout=60) as c:
        assert c.change("RotateConfig", org="second")["retiring"] == shared
        ids = [c.call("GetConfig", org=org)["config"]["admin_api_key_id"] for org in ("default", "second")]
    wait_for(lambda: sorted(alive(service)) == sorted(ids), 40, "the shared key's end")
    mints(ready)


# ---- people who change their minds ----


def test_a_compromised_key_goes_though_the_first_try_fails(daemon_stopped, service):
    """Nobody has to ask again."""
    d = moved(daemon_stopped)
    known = key_id(d)
    service.fault(kind="status", status=500, method="POST", path=KEYS)
    with d.attached(timeout=60) as c, pytest.raises(Error) as e:
        c.change("RotateConfig", compromised=True)
    assert "goes on trying" in str(e.value)
    assert config(d)["rotation_cause"] == "compromised"
    d.kill()
    spawn_with_clock(d, 100, 100)  # what never arrived is looked for so long
    wait_for(lambda: known not in alive(service), 40, "the key to be deleted")
    settled(d, service)


def test_a_compromised_key_of_a_person_is_retired_by_hand(ready, service):
    """It cannot make another one; a person does, and it goes at once."""
    known = key_id(ready)
    service.fault(kind="status", status=403, method="POST", path=KEYS, times=-1)
    with ready.attached(timeout=60) as c, pytest.raises(Error):
        c.change("RotateConfig", compromised=True)
    given = new_key(service)
    give(ready, service, given["value"], keep_first=True)
    wait_for(lambda: known not in alive(service), 3, "the key to be deleted")
    assert key_id(ready) == given["id"]
    mints(ready)


def test_compromised_hurries_what_is_to_go(daemon_stopped, service):
    """The key that got out may be the one that calls in flight still end on."""
    d = daemon_stopped
    d.settings["service"] |= {"connect_timeout": "20s", "call_timeout": "20s"}
    d.start().prepare()
    old = rotate(d)["retiring"]
    with d.attached(timeout=60) as c:
        next_old = c.change("RotateConfig", compromised=True)["retiring"]
    wait_for(lambda: not {old, next_old} & set(alive(service)), 10, "both to be deleted")
    settled(d, service)


def test_a_key_by_hand_is_not_rotated_for_a_lost_one(ready, service):
    """--keep-first holds, whatever was under way before."""
    service.fault(kind="drop", method="POST", path=KEYS)
    service.fault(kind="status", status=503, method="GET", path=KEYS, times=1)
    with pytest.raises(Error):
        rotate(ready)
    mine = new_key(service)
    service.control("faults", method="DELETE")
    give(ready, service, mine["value"], keep_first=True)
    idle(ready, 60)
    time.sleep(1.5)
    assert key_id(ready) == mine["id"] and config(ready)["rotation_cause"] == ""
    assert not [k for k in service.control("state?alive=1")["admin_keys"] if k["name"].startswith("hsmint-")]


def test_without_automation_the_end_is_told(ready, service):
    """The key that there is keeps its end; the answer says so."""
    change(ready, fields={"rotation_period": "30d"})
    rotate(ready)
    said = " ".join(change(ready, fields={"disable_automated_rotation": True})["warnings"])
    assert "config rotate" in said and "20" in said, said
    said = " ".join(change(ready, fields={"disable_automated_rotation": False, "rotation_period": ""})["warnings"])
    assert "config rotate" in said, said
    idle(ready)
    rotate(ready)
    assert not change(ready)["warnings"]


def test_delete_config_leaves_no_key_of_ours(ready, service):
    """Nobody has its value: it goes with the configuration."""
    rotate(ready)
    idle(ready)
    with ready.attached() as c:
        c.change("DeleteConfig")
    assert alive(service) == []


def test_delete_config_leaves_a_persons_key(ready, service):
    with ready.attached() as c:
        c.change("DeleteConfig")
    assert len(alive(service)) == 1


def test_delete_config_says_which_key_it_left(ready, service):
    rotate(ready)
    idle(ready)
    ours = key_id(ready)
    service.control("settings", {"self_delete": False})
    with ready.attached() as c:
        said = " ".join(c.change("DeleteConfig")["warnings"])
    assert ours in said and alive(service) == [ours]
