"""Two daemons on one store or one HSM while the HSM's keys rotate: on one store the second
does not start; with a copy of the store both work on, neither takes the other's keys, each
finds the other's anchor, and nothing of either is lost that the other does not destroy."""

import pytest

from conftest import PROJECT, Daemon, wait_for
from faultyhsm import objects, pins
from test_anchor import alarms, copy_state
from test_hsm_rotate import destroy, keys, mints, quiet, rotate
from varlink import Error, request_id


@pytest.fixture
def two(ready, place, token, service):
    """`ready`, and a daemon with a copy of its state; one HSM."""
    with ready.attached() as c:
        c.change("SetRole", name="kept", fields={"project_id": PROJECT, "keep_value": True})
        reply = c.call("Mint", role="kept", request_id=request_id())
        ready.kept = reply["lease"]["lease_id"], reply.secret.decode()
    ready.stop()
    other = place / "other"
    other.mkdir(mode=0o700)
    clone = Daemon(other, token, service)
    copy_state(ready.state, clone.state)
    ready.start()
    clone.start()
    yield ready, clone
    clone.end()


def reads(daemon, kept):
    lease, value = kept
    with daemon.attached() as c:
        return c.call("ReadKey", lease_id=lease).secret.decode() == value


def private(token):
    return {label for kind, label, _ in objects(token) if kind in ("private", "secret")}


def test_one_store(ready, place, token, service):
    """The state directory is locked, also while a rotation is under way."""
    (place / "second").mkdir(mode=0o700)
    second = Daemon(place / "second", token, service)
    second.settings["daemon"]["state_dir"] = ready.state
    second.state = ready.state
    before = private(token)
    status, text = second.fails()
    assert status != 0 and "another" in text, text
    assert private(token) == before
    assert rotate(ready, "call")["state"] == "done" and mints(ready)


@pytest.mark.parametrize("key", ["call", "seal"])
def test_a_copy_of_the_store(key, two, token, service):
    ready, clone = two
    first = keys(ready)[key]
    assert rotate(ready, key)["state"] == "done"
    new = keys(ready)[key]
    # The copy knows nothing of it: its key is there still, and it goes on with that one.
    assert keys(clone)[key] == first and service.accepts(mints(clone)) and reads(clone, ready.kept)
    # It makes another one: a name that is on the token is passed over.
    assert rotate(clone, key)["state"] == "done"
    third = keys(clone)[key]
    assert len({first, new, third}) == 3 and {first, new, third} <= private(token)
    for d in (ready, clone):
        assert reads(d, ready.kept)
        d.stop()
        d.start()
        assert service.accepts(wait_for(lambda d=d: quiet(mints, d), 20, "a mint")) and reads(d, ready.kept)
    # Both were told: one of them, at least, that it is not alone.
    wait_for(lambda: "log-rolled-back" in alarms_of(ready) | alarms_of(clone), 20, "the alarm")
    # What one destroys is the first's, which both have left: neither needs it.
    assert destroy(ready, first)["state"] == "destroyed" and first not in private(token)
    for d in (ready, clone):
        assert service.accepts(mints(d)) and reads(d, ready.kept)
    with pytest.raises(Error) as e:
        destroy(ready, third)  # not a key of its own
    assert e.value.name == "NotFound" and third in private(token)
    assert {k["label"] for k in pins(ready)["keys"]} <= private(token)


def alarms_of(daemon):
    with daemon.attached() as c:
        return alarms(c)


def test_a_key_that_the_copy_still_uses_is_destroyed(two, token, service):
    """The one that destroys it cannot know. The copy says which key is missing, signs
    nothing, and is as good as before once it has the state of the other."""
    ready, clone = two
    assert rotate(ready, "call")["state"] == "done"
    ready.stop()
    ready.start()
    wait_for(lambda: quiet(mints, ready), 20, "a mint")
    assert destroy(ready, "hsmint-call-1")["state"] == "destroyed"
    clone.stop()
    clone.start()
    with pytest.raises(Error) as e:
        mints(clone)
    assert e.value.name == "HsmKeys" and "hsmint-call-1" in str(e.value) and "missing" in str(e.value)
    assert service.accepts(mints(ready)) and reads(ready, ready.kept)


def rotation(daemon):
    with daemon.attached() as c:
        return c.call("Status")["status"]["hsm"].get("rotation")


def test_the_logs_key_and_a_copy(two, service):
    """Whoever comes to the other's anchor is told so, and waits; once it is alone, its
    rotation ends by itself, and its log goes on by the next name."""
    ready, clone = two
    quiet(rotate, ready, "log")
    wait_for(lambda: "log-rolled-back" in alarms_of(ready) | alarms_of(clone), 20, "the alarm")
    clone.stop()
    wait_for(lambda: keys(ready)["log"] == "hsmint-log-2" and not rotation(ready), 60, "the rotation to end")
    assert service.accepts(mints(ready)) and reads(ready, ready.kept)
    clone.start()
