"""The admin key rotates on command, inside the boundary: whatever the service or a
SIGKILL does in the middle, a key that works is there, and in the end none of ours but it."""

import re
import threading
import time

import pytest

from checker import reconcile
from conftest import callers, wait_for
from varlink import Error, request_id

KEYS = "*/admin_api_keys"
ONE_KEY = "*/admin_api_keys/*"


@pytest.fixture
def daemon(daemon_stopped):
    """Deadlines are short, so that the old key goes soon."""
    daemon_stopped.settings["hsm"]["deadline"] = "2s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "2s"}
    return daemon_stopped.start()


def key_id(daemon):
    with daemon.attached() as c:
        return c.call("GetConfig")["config"]["admin_api_key_id"]


def alive(service):
    return [k["id"] for k in service.control("state?alive=1")["admin_keys"]]


def rotate(daemon):
    with daemon.attached(timeout=60) as c:
        return c.change("RotateConfig")


def mints(daemon):
    with daemon.attached() as c:
        return c.call("Mint", role="my-app", request_id=request_id()).secret.decode()


def settled(daemon, service, seconds=40):
    """One admin key, the daemon's, and it mints."""
    wait_for(lambda: alive(service) == [key_id(daemon)], seconds, "one admin key to be left")
    assert service.accepts(mints(daemon))


def test_a_new_key_takes_the_place_of_the_old_one(ready, service):
    old, old_value = key_id(ready), service.admin_key
    reply = rotate(ready)
    new = reply["admin_api_key_id"]
    assert new != old and reply["retiring"] == old and key_id(ready) == new
    settled(ready, service)
    status, _ = service.request("GET", f"{service.url}/organization/projects", bearer=old_value)
    assert status == 401
    # Its name is ours, and nothing of its value is in daemon, store or log.
    state = service.control("state?alive=1")["admin_keys"][0]
    value = service.control(f"keys/{new}")["value"]
    assert re.fullmatch(r"hsmint-default-[a-z2-7]{18}", state["name"])
    for path in [ready.log_file, *ready.state.rglob("*")]:
        if path.is_file():
            assert value.encode() not in path.read_bytes() and value[9:30].encode() not in path.read_bytes(), path
    # Again, and after a restart: the newest is taken.
    wait_for(lambda: not under_way(ready), 30, "the rotation to end")
    assert rotate(ready)["retiring"] == new
    ready.kill()
    ready.start()
    settled(ready, service)


def under_way(daemon):
    with daemon.attached() as c:
        config = c.call("GetConfig")["config"]
        return config.get("rotation") or config["retiring"]


def test_mints_go_on_across_rotations(ready, service):
    """Callers at full speed, three rotations: no mint fails, no key is dead."""
    with callers(lambda: mints(ready), 20) as made:
        for _ in range(3):
            wait_for(lambda: not under_way(ready), 40, "the rotation to end")
            rotate(ready)
            time.sleep(0.5)
    print(f"# {len(made)} mints across 3 rotations, none failed")
    settled(ready, service)


def test_a_service_that_does_not_forget(ready, service):
    """A deleted key that still opens is tried until it does not."""
    service.control("settings", {"revoke_ms": 8000})
    rotate(ready)
    old = service.admin_key
    wait_for(lambda: len(alive(service)) == 1, 30, "the old key to be deleted")
    wait_for(lambda: [r["state"] for r in under_way(ready)] == ["confirm"], 5, "it to be tried")
    wait_for(lambda: service.request("GET", f"{service.url}/organization/projects", bearer=old)[0] == 401, 20, "its end")
    wait_for(lambda: not under_way(ready), 30, "the rotation to end")


def test_another_key_by_hand_wins(ready, service):
    """While a new key is being tried, an administrator sets a third one. The service denies
    that the new key is there, for a while: it goes all the same."""
    third = service.control("admin_keys", {"name": "by-hand"})
    service.control("settings", {"visibility_ms": 30000, "visibility_delete": True})
    service.fault(kind="status", status=401, method="GET", path=KEYS, times=-1)
    with pytest.raises(Error) as e:
        rotate(ready)
    assert "not accepted yet" in str(e.value)
    service.control("faults", method="DELETE")
    with ready.attached(timeout=60) as c:
        c.change("SetConfig", secret=third["value"].encode(), fields={"api_endpoint": service.url}, keep_first=True)
    assert key_id(ready) in (third["id"], *alive(service))
    mints(ready)
    wait_for(lambda: not [k for k in service.control("state?alive=1")["admin_keys"]
                          if k["name"].startswith("hsmint-") and k["id"] != key_id(ready)], 60, "ours to be gone")


def test_reconcile_leaves_a_key_that_is_to_go_to_its_rotation(ready, service):
    """It belongs to nobody's configuration, and calls in flight still need it."""
    rotate(ready)
    wait_for(lambda: not under_way(ready), 40, "the first rotation to end")
    old = rotate(ready)["retiring"]
    report = reconcile(ready)
    assert old in alive(service) and report["admin_unknown"] == 0, report
    settled(ready, service)


def test_the_old_key_set_again_by_hand_stays(ready, service):
    old = key_id(ready)
    assert rotate(ready)["retiring"] == old
    with ready.attached(timeout=60) as c:
        c.change("SetConfig", secret=service.admin_key.encode(), fields={"api_endpoint": service.url}, keep_first=True)
    assert key_id(ready) == old
    wait_for(lambda: not under_way(ready), 30, "the rotation to end")
    assert old in alive(service)
    mints(ready)


def test_settings_that_change_meanwhile(ready, service):
    """They are written after the rotation, and with the key that it took."""
    service.control("settings", {"latency_ms": 300})
    reply = []
    rotating = threading.Thread(target=lambda: reply.append(rotate(ready)))
    rotating.start()
    wait_for(lambda: under_way(ready), 10, "the rotation to begin")
    with ready.attached(timeout=60) as c:
        c.change("SetConfig", fields={"rotation_period": 86400})
    rotating.join()
    assert key_id(ready) == reply[0]["admin_api_key_id"]
    settled(ready, service)
    with ready.attached() as c:
        assert c.call("GetConfig")["config"]["rotation_period"] == 86400


def test_two_settings_at_a_time(ready, service):
    """Neither takes the other back."""
    service.control("settings", {"latency_ms": 200})
    fields = {"rotation_period": 86400, "disable_automated_rotation": True}

    def change(name):
        with ready.attached(timeout=60) as c:
            c.change("SetConfig", fields={name: fields[name]}, secret=service.admin_key.encode(), keep_first=True)

    threads = [threading.Thread(target=change, args=(name,)) for name in fields]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with ready.attached() as c:
        config = c.call("GetConfig")["config"]
    assert {name: config[name] for name in fields} == fields


def test_the_answer_for_another_key(ready, service):
    """A proxy that mixes replies up: that key is neither taken nor deleted."""
    old = key_id(ready)
    other = service.control("admin_keys", {"name": "somebody's"})
    answer = {"id": other["id"], "name": "somebody's", "value": "sk-admin-of-nobody"}
    service.fault(kind="set", fields=answer, method="POST", path=KEYS)
    with pytest.raises(Error) as e:
        rotate(ready)
    assert e.value.name == "ServiceReply" and "another admin key" in str(e.value)
    # Ours, whose value was lost, is deleted, and the rotation begins again.
    wait_for(lambda: key_id(ready) != old and not under_way(ready), 40, "the rotation to end")
    assert sorted(alive(service)) == sorted([key_id(ready), other["id"]])
    mints(ready)
