"""The HSM's own keys get another generation: in the HSM, while all goes on, and whatever ends
in the middle. SIGKILL of daemon and keeper by turns at each step; HSMINT_LONG=1 is both at each."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from auditcli import hsmint, verdict
from conftest import SOURCE, callers, not_sanitized, wait_for
from stopat import StoppedAt
from varlink import Error, request_id

LONG = bool(os.environ.get("HSMINT_LONG"))


def cells(steps, who):
    return steps if LONG else steps[who == "keeper"::2]


def verb(name):
    """Its number in the frames between daemon and keeper."""
    text = (SOURCE / "common/frame.h").read_text()
    names = re.findall(r"^ +(VERB_[A-Z_]+)\b", text[text.index("enum verb {"):], re.M)
    return names.index(f"VERB_{name}") + 1


def rotate(daemon, key):
    with daemon.attached(timeout=60) as c:
        return c.change("RotateHsm", name=key)["rotation"]


def keys(daemon):
    """use → its label, of those in use."""
    with daemon.attached() as c:
        return {k["use"]: k["label"] for k in c.call("Status")["status"]["hsm"]["keys"]}


def mints(daemon):
    with daemon.attached() as c:
        return c.call("Mint", role="my-app", request_id=request_id()).secret.decode()


def records(daemon, kind):
    with daemon.attached() as c:
        return [json.loads(line) for line in c.call("Records", kind=kind)["lines"]]


def holds(daemon, place, *words):
    """The log, exported and verified from nothing."""
    copy = place / f"copy-{time.monotonic_ns()}.jsonl"
    hsmint("audit", "export", "--jsonl", copy, env={"HSMINT_SOCKET": str(daemon.socket)})
    return verdict(copy, *words)


def test_the_call_key(ready, service, place):
    old = keys(ready)
    assert rotate(ready, "call") == {"key": "call", "state": "done"}
    new = keys(ready)
    assert new == {**old, "call": "hsmint-call-2"}
    assert service.accepts(mints(ready))
    # The record of the new key comes before its first signature, and both are verified.
    signed = records(ready, "call")
    first = next(r for r in signed if r["signed"]["keyid"].startswith("hsmint-call-2:"))
    told = [r for r in records(ready, "keys") if any(k["keyid"] == first["signed"]["keyid"] for k in r["call"])]
    assert told and told[0]["seq"] < first["seq"]
    assert [r["state"] for r in records(ready, "rotate-key")] == ["make", "take", "done"]
    assert any(r["signed"]["keyid"].startswith("hsmint-call-1:") for r in signed)
    holds(ready, place)
    # After a restart the new one signs; the old one is there still.
    ready.stop()
    ready.start()
    assert service.accepts(mints(ready)) and keys(ready) == new
    assert rotate(ready, "call")["state"] == "done" and keys(ready)["call"] == "hsmint-call-3"
    assert service.accepts(mints(ready))
    holds(ready, place)


def vkeys(daemon):
    """Of the log, as `hsmint audit key` tells them."""
    out = hsmint("audit", "key", env={"HSMINT_SOCKET": str(daemon.socket)})
    return [line.strip() for line in out.splitlines() if re.match(r"^\S+\+[0-9a-f]{8}\+\S+$", line.strip())]


def signatures(daemon):
    return head(daemon).count("\u2014 ")


def test_the_logs_keys(ready, service, place):
    old, first, one = keys(ready), vkeys(ready), signatures(ready)
    copy = place / "copy"
    export(ready, copy)
    assert one == len(first) > 0
    assert rotate(ready, "log") == {"key": "log", "state": "done"}
    new, second = keys(ready), vkeys(ready)
    assert new["log"] == "hsmint-log-2" and new["call"] == old["call"] and not set(first) & set(second)
    assert signatures(ready) == 2 * one  # both, until the old one is destroyed
    assert service.accepts(mints(ready))
    for vkey in (*first, *second):
        holds(ready, place, "--key", vkey)
    ready.stop()
    ready.start()
    assert service.accepts(mints(ready)) and keys(ready) == new and signatures(ready) == 2 * one
    with ready.attached() as c:
        assert [a for a in c.call("Status")["status"]["alarms"] if a["id"].startswith("log-")] == []
    export(ready, copy)
    # Only the one before signs beside the third.
    rotate(ready, "log")
    assert keys(ready)["log"] == "hsmint-log-3" and signatures(ready) == 2 * one
    ready.kill()
    ready.start()
    assert service.accepts(mints(ready))
    holds(ready, place, "--key", second[0])
    export(ready, copy)
    verdict(copy, "--key", first[0])  # one introduces the next
    assert not [r for r in records(ready, "rollback")] and "resumed" not in head(ready) and "lost" not in head(ready)


def export(daemon, copy):
    hsmint("audit", "export", copy, env={"HSMINT_SOCKET": str(daemon.socket)})


def head(daemon):
    with daemon.attached() as c:
        return c.call("LogHead", sign=True)["checkpoint"]


def destroy(daemon, label):
    with daemon.attached(timeout=60) as c:
        return c.change("DestroyHsmKey", name=label)["rotation"]


def refused(daemon, label, error, text=""):
    with pytest.raises(Error) as e:
        destroy(daemon, label)
    assert e.value.name == error and text in str(e.value), e.value


def test_an_old_key_is_destroyed(ready, service, token, place):
    first = vkeys(ready)
    refused(ready, "hsmint-call-1", "Invalid", "in use")
    refused(ready, "hsmint-call-2", "NotFound")
    refused(ready, "x" * 100, "NotFound")
    rotate(ready, "call")
    rotate(ready, "log")
    assert service.accepts(mints(ready))
    copy = place / "copy"
    export(ready, copy)
    labels = ["hsmint-call-1", "hsmint-log-1", *(["hsmint-log-ed25519-1"] if len(first) > 1 else [])]
    for label in labels:
        refused(ready, label, "Invalid", "restart hsmintd first")
    os.kill(ready.keeper(), signal.SIGKILL)  # another keeper, which the new keys were given to
    wait_for(lambda: quiet(mints, ready), 20, "the keeper to be back")
    before, one = signatures(ready), len(first)
    assert before == 2 * one
    for label in labels:
        assert destroy(ready, label) == {"key": label, "state": "destroyed"} and label not in objects(token)
        assert destroy(ready, label)["state"] == "destroyed"  # again
    assert set(objects(token)) >= {"hsmint-call-2", "hsmint-log-2", "hsmint-seal-1", "hsmint-blob-1"}
    assert signatures(ready) == one
    refused(ready, "hsmint-seal-1", "Invalid", "in use")
    assert service.accepts(mints(ready))
    ready.stop()
    ready.start()
    assert service.accepts(mints(ready)) and signatures(ready) == one
    export(ready, copy)
    verdict(copy, "--key", first[0])
    ends = [(r["state"], r["key"]) for r in records(ready, "rotate-key") if r["state"].startswith("destroy")]
    assert ends[0] == ("destroy", "hsmint-call-1") and ("destroyed", "hsmint-call-1") in ends
    rotate(ready, "log")  # goes on from there
    assert service.accepts(mints(ready))
    holds(ready, place)


def quiet(function, *arguments):
    try:
        return function(*arguments)
    except (Error, OSError, EOFError):
        return None


@pytest.mark.parametrize("who", ["daemon", "keeper"])
def test_killed_while_an_old_key_is_destroyed(who, stoppable, service, token, place):
    d = stoppable
    steps = [(v, s) for v in ("DESTROY_KEY", "PROVISION") for s in ("ask", "keeper-asked", "keeper-done", "answered")]
    for n, (v, step) in enumerate(cells(steps, who), 1):
        label = f"hsmint-call-{n}"
        assert rotate(d, "call")["state"] == "done"
        d.kill()
        d.start()
        assert service.accepts(wait_for(lambda: quiet(mints, d), 20, "a mint"))
        d.killed_at_verb(who, step, verb(v), 0, quiet, destroy, d, label)
        assert service.accepts(wait_for(lambda: quiet(mints, d), 20, "a mint"))
        wait_for(lambda: quiet(destroy, d, label), 20, "it to be destroyed")
        assert label not in objects(token) and keys(d)["call"] == f"hsmint-call-{n + 1}"
        holds(d, place)
        print(f"# {who} killed at {v.lower()} {step}")


def test_what_does_not_rotate(ready):
    for name in ("blob", "log-ed25519", "x" * 300, ""):
        with pytest.raises(Error) as e:
            rotate(ready, name)
        assert e.value.name == "Invalid", name
    assert rotate(ready, "call")["state"] == "done"  # nothing is left of those


def test_mints_go_on(ready, service, place):
    """Callers at full speed, five rotations: no mint fails, each signature verifies."""
    with callers(lambda: mints(ready), 20) as made:
        for _ in range(5):
            rotate(ready, "call")
            time.sleep(0.2)
    assert keys(ready)["call"] == "hsmint-call-6"
    holds(ready, place)
    print(f"# {len(made)} mints across 5 rotations, none failed")


# ---- the crash matrix ----

STEPS = [(v, step, skip)
         for v, skips in (("ROTATE_KEY", (0, 1)), ("PROVISION", (0,)))
         for skip in skips
         for step in ("ask", "keeper-asked", "keeper-done", "answered")]
# The checkpoint that both sign; the anchor is written in between. (Without the plan's steps:
# the pins hold 64 keys of before.)
SIGNING = [("SIGN_CHECKPOINT", step, 0) for step in ("ask", "keeper-asked", "keeper-done", "answered")]


@pytest.fixture
def stoppable(place, token, service):
    not_sanitized("a sanitizer wants to be loaded first")
    d = StoppedAt(place, token, service)
    d.settings["hsm"]["deadline"] = "2s"
    yield d.start().prepare()
    d.end()


def objects(token):
    """label → how many, of what is on the token."""
    r = subprocess.run(["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin, "-O"],
                       env={**os.environ, **token.environment}, capture_output=True, text=True, check=True)
    found = re.findall(r"label: +(\S+)", r.stdout)
    return {label: found.count(label) for label in found}


def settled(daemon, token, service, place, key):
    """Nothing is under way, there is one key of each label that is pinned, and no other."""
    def ended():
        try:
            return rotate(daemon, key)["state"] == "done"
        except Error as e:
            assert e.name in ("Exists", "Keeper", "Locked", "HsmAbsent", "Deadline", "NotLogged"), e
            return False

    wait_for(ended, 40, "the rotation to end, and another to be made")
    assert service.accepts(mints(daemon))
    label = keys(daemon)[key]
    there = objects(token)
    versions = sorted(int(m[1]) for m in (re.fullmatch(rf"hsmint-{key}-(\d+)", label) for label in there) if m)
    assert not records(daemon, "rollback") and "resumed" not in head(daemon) and "lost" not in head(daemon)
    assert versions == list(range(1, int(label.rsplit("-", 1)[1]) + 1)), there
    holds(daemon, place)
    return versions[-1]


@pytest.mark.parametrize("key", ["call", "log"])
@pytest.mark.parametrize("who", ["daemon", "keeper"])
def test_killed_at_every_step(who, key, stoppable, token, service, place):
    d = stoppable
    version = 1
    for v, step, skip in cells(STEPS[4:] + SIGNING if key == "log" else STEPS, who):
        d.killed_at_verb(who, step, verb(v), skip, quietly, d, key)
        now = settled(d, token, service, place, key)
        assert now in (version + 1, version + 2), (v, step, skip)
        print(f"# {who} killed at {v.lower()} {step} {skip}: version {version} → {now}")
        version = now


def quietly(daemon, key):
    try:
        rotate(daemon, key)
    except (Error, OSError, EOFError):
        pass
