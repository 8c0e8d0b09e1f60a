"""Rotations of the HSM's keys while the HSM, or the store, fails. Each PKCS#11 call of one
goes wrong once: it fails, before or after its effect, its session is lost, or the keeper
ends there; each write and fsync of the store fails, or the daemon ends there. Afterwards,
and with nothing done by hand: on the HSM are exactly the keys that are pinned, everything
sealed opens, mints work, and so does the next rotation; the log verifies from its first key.

The usual run has a few cells of each kind; HSMINT_LONG=1 is all."""

import errno
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from auditcli import verdict
from conftest import PROJECT, Token, not_sanitized, wait_for
from faultyhsm import HsmFaults, check_objects, objects, pins
from mounts import fill, mount, own_mounts, unmount
from stopat import DIES, StoppedAt
from test_hsm_rotate import export, head, keys, mints, records, verb, vkeys
from varlink import Error, request_id

LONG = bool(os.environ.get("HSMINT_LONG"))
KEYS = ["call", "log", "seal"]
ROTATIONS = 24  # of one instance: its pins hold 64 keys of before

# What becomes of a call, and what it says.
FAULTS = [
    ("fails", "DEVICE_ERROR"),
    ("fails", "DEVICE_MEMORY"),
    ("fails", "GENERAL_ERROR"),
    ("session lost", "SESSION_HANDLE_INVALID"),
    ("fails after", "DEVICE_ERROR"),
    ("fails after", "DEVICE_MEMORY"),
    ("stuck", "GENERAL_ERROR"),
    ("dies", "GENERAL_ERROR"),
    ("dies after", "GENERAL_ERROR"),
]


class World:
    """One instance after the other, each with a token of its own."""

    def __init__(self, place, service):
        self.place, self.service = place, service
        self.daemon, self.n, self.left, self.kept = None, 0, 0, {}

    def begin(self, settings=None):
        self.end()
        place = self.place / f"w{self.n}"
        place.mkdir(mode=0o700, exist_ok=True)
        self.n += 1
        self.daemon = StoppedAt(place, Token(place), self.service)
        self.daemon.settings["hsm"]["deadline"] = "2s"
        self.daemon.settings["daemon"] |= settings or {}
        self.hsm = HsmFaults(self.daemon)
        self.daemon.start().prepare()
        with self.daemon.attached() as c:
            c.change("SetRole", name="kept", fields={"project_id": PROJECT, "keep_value": True})
        self.first, self.left, self.kept = vkeys(self.daemon)[0], ROTATIONS, {}
        self.keep()

    def end(self):
        if self.daemon:
            self.daemon.go_on()
            self.verify()
            self.daemon.end()
            self.daemon = None

    def need(self):
        """A daemon whose keys can be rotated twice more."""
        self.left -= 2
        if self.left < 0 or not self.daemon:
            self.begin()
        return self.daemon

    def keep(self):
        with self.daemon.attached() as c:
            reply = c.call("Mint", role="kept", request_id=request_id())
            self.kept[reply["lease"]["lease_id"]] = reply.secret.decode()

    def opens(self):
        """Everything that was ever sealed."""
        with self.daemon.attached() as c:
            for lease, key in self.kept.items():
                assert c.call("ReadKey", lease_id=lease).secret.decode() == key
        assert self.service.accepts(mints(self.daemon))

    def verify(self):
        assert not records(self.daemon, "rollback") and "resumed" not in head(self.daemon)
        copy = self.daemon.place / "copy"
        export(self.daemon, copy)
        verdict(copy, "--key", self.first)  # one key introduces the next

    def rotate(self, key):
        """What its caller is told; "done" where all is well."""
        try:
            with self.daemon.attached(timeout=60) as c:
                return c.change("RotateHsm", name=key)["rotation"]["state"]
        except Error as e:
            return e.name
        except (OSError, EOFError):
            return "cut off"

    def start_again(self):
        self.daemon.process.wait(10)
        self.daemon.start()

    def new_keeper(self):
        """So that old keys may be destroyed."""
        os.kill(self.daemon.keeper(), signal.SIGKILL)
        wait_for(lambda: self.quietly("Mint", role="my-app"), 30, "a mint")

    def quietly(self, method, **parameters):
        try:
            with self.daemon.attached(timeout=60) as c:
                return c.change(method, **parameters)
        except (Error, OSError, EOFError):
            return None

    def settle(self, key):
        """It ends by itself; the next one works; how long it took."""
        began = time.monotonic()
        version = int(keys(self.daemon)[key].rsplit("-", 1)[1])
        wait_for(lambda: self.rotate(key) == "done", 40, "the rotation to end, and the next one to work")
        assert int(keys(self.daemon)[key].rsplit("-", 1)[1]) > version
        check_objects(self.daemon)
        self.opens()
        return time.monotonic() - began


@pytest.fixture
def world(place, service):
    not_sanitized("a sanitizer wants to be loaded first")
    w = World(place, service)
    yield w
    w.end()


def calls_of(world, key):
    """Those of one rotation, as (which function, how many of it before)."""
    world.need()
    world.hsm.arm()
    assert world.rotate(key) == "done"
    world.hsm.disarm()
    seen, calls = {}, []
    for function in world.hsm.noted():
        seen[function] = seen.get(function, 0) + 1
        calls.append((function, seen[function]))
    return calls


def cells_of(calls, n):
    """All; in the usual run of each function its first, last and some other call, with
    the faults by turns."""
    cells = [(i, call, fault) for i, call in enumerate(calls, 1) for fault in FAULTS]
    if LONG:
        return cells
    chosen, turn = [], random.randrange(len(FAULTS))
    for function in dict.fromkeys(f for f, _ in calls):
        its = [(i, c) for i, c in enumerate(calls, 1) if c[0] == function]
        for i, call in {*its[:1], *its[-1:], random.choice(its)}:
            chosen.append((i, call, FAULTS[turn % len(FAULTS)]))
            turn += 1
    makes = [c for c in cells if c[1][0].startswith("GenerateKey")]
    return random.sample(makes, min(len(makes), n // 3)) + random.sample(chosen, min(len(chosen), n - n // 3))


@pytest.mark.parametrize("key", KEYS)
def test_the_hsm_fails(key, world, record_property):
    began, met = time.monotonic(), 0
    calls = calls_of(world, key)
    cells = cells_of(calls, 8)
    for nth, (function, of_it), (how, rv) in cells:
        world.need()
        world.hsm.arm(nth, how, rv)
        told = world.rotate(key)
        hit = world.hsm.disarm()
        met += hit
        took = world.settle(key)
        record_property("cell", f"{key} {function} {of_it} {how} {rv}: {told}, {took:.1f} s{'' if hit else ', not met'}")
    assert met > len(cells) // 2, "the calls of a rotation are others each time"
    record_property("cells", f"{key}: {met} of {len(cells)} cells, {len(calls)} calls, {time.monotonic() - began:.1f} s")


def test_the_hsm_fails_while_a_key_is_destroyed(world, record_property):
    """By the same command again it is gone, whatever became of the first."""
    began, cells, n = time.monotonic(), [], 0
    faults = [("fails", "DEVICE_ERROR"), ("fails after", "GENERAL_ERROR"), ("dies", "GENERAL_ERROR"), ("dies after", "GENERAL_ERROR")]
    while n == 0 or cells:
        key = ("call", "log")[n % 2]
        world.need()
        label = keys(world.daemon)[key]
        assert world.rotate(key) == "done"
        world.new_keeper()
        nth, (how, rv) = cells.pop() if cells else (0, ("-", "GENERAL_ERROR"))
        world.hsm.arm(nth, how, rv, "DestroyObject" if nth else "-")
        told = world.quietly("DestroyHsmKey", name=label)
        world.hsm.disarm()
        if n == 0:
            count = world.hsm.noted().count("DestroyObject")
            cells = [(i, fault) for i in range(1, count + 1) for fault in faults]
            cells = cells if LONG else random.sample(cells, 3)
        wait_for(lambda: world.quietly("DestroyHsmKey", name=label), 30, f"{label} to be destroyed")
        assert label not in {name for _, name, _ in objects(world.daemon.token)}
        check_objects(world.daemon)
        world.opens()
        # A start with what is left.
        world.new_keeper()
        record_property("cell", f"{label} DestroyObject {nth} {how} {rv}: {'destroyed' if told else 'refused'}, then destroyed")
        n += 1
    record_property("cells", f"{n} destroyed in {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize("key", KEYS)
def test_the_hsm_loses_a_new_key(key, world):
    """As one that did not sync it, when the power went; between its pins and its use. All
    stands still, and nothing is lost: an administrator lets the rotation go."""
    d = world.need()
    before = pins(d)
    world.daemon.stop_at_verb("ask", verb("PROVISION"))
    t = threading.Thread(target=world.rotate, args=(key,))
    t.start()
    wait_for(d.stopped, 20, "the new pins to be stored")
    d.kill()
    lose(d.token, {k["label"]: k for k in pins(d)["keys"]}, {k["label"] for k in before["keys"]})
    d.go_on()
    t.join()
    d.start()
    assert world.quietly("Mint", role="my-app") is None
    assert world.rotate(key) in ("Exists", "HsmKeys")
    with pytest.raises(Error) as e:
        d.attached().change("RotateHsm", name="call" if key != "call" else "log", abandon=True)
    assert e.value.name == "NotFound"
    with d.attached(timeout=60) as c:
        said = c.change("RotateHsm", name=key, abandon=True)["rotation"]
    assert (said["state"], said["was"]) == ("abandoned", "take"), said
    wait_for(lambda: world.quietly("Mint", role="my-app"), 30, "a mint")
    assert pins(d) == before
    check_objects(d)
    world.opens()
    world.settle(key)


def lose(token, now, before):
    """The private or secret keys that are new; public halves may have been synced."""
    for label in set(now) - before:
        kind = "privkey" if now[label]["public_key"] else "secrkey"
        subprocess.run(
            ["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin]
            + ["--delete-object", "--type", kind, "--label", label],
            env={**os.environ, **token.environment},
            check=True,
            stdout=subprocess.DEVNULL,
        )


ERRORS = {errno.EIO: "EIO", errno.ENOSPC: "ENOSPC", DIES: "the daemon ends"}


@pytest.mark.parametrize("key", KEYS)
def test_the_store_fails(key, world, record_property):
    began, cells = time.monotonic(), []
    for what in ("write", "sync"):
        world.need()
        world.daemon.fail(what, 1 << 30, 0)
        assert world.rotate(key) == "done"
        world.daemon.set(fail=0)
        cells += [(what, nth, error) for nth in range(1, world.daemon.get("seen") + 1) for error in ERRORS]
    cells = cells if LONG else random.sample(cells, 5)
    for what, nth, error in cells:
        world.need()
        world.daemon.fail(what, nth, error)
        told = world.rotate(key)
        world.daemon.set(fail=0)
        if error == DIES and world.daemon.get("failed"):
            world.start_again()
        took = world.settle(key)
        record_property("cell", f"{key} {what} {nth} {ERRORS[error]}: {told}, {took:.1f} s")
    record_property("cells", f"{key}: {len(cells)} cells in {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize("key", KEYS if LONG else [random.choice(KEYS)])
def test_the_disk_is_full(key, place, service, record_property):
    """Before a rotation, and between its steps: it waits for space, and loses nothing."""
    not_sanitized("a sanitizer wants to be loaded first")
    own_mounts()
    state = place / "w0" / "state"
    state.mkdir(parents=True, mode=0o700)
    assert mount(state, "tmpfs", options="size=48m,mode=0700")
    world = World(place, service)
    try:
        world.begin({"disk_reserve": "8M"})
        d = world.daemon
        fill(state / "filler")
        time.sleep(1.1)  # the store looks once a second
        assert world.rotate(key) == "DiskFull"
        (state / "filler").unlink()
        world.settle(key)
        for v in ("ROTATE_KEY", "PROVISION"):
            d.stop_at_verb("keeper-done", verb(v), 1 if v == "ROTATE_KEY" else 0)
            t = threading.Thread(target=world.rotate, args=(key,))
            t.start()
            wait_for(d.stopped, 20, v)
            fill(state / "filler")
            time.sleep(1.1)
            d.go_on()
            t.join()
            assert world.rotate(key) in ("DiskFull", "Exists"), v
            (state / "filler").unlink()
            took = world.settle(key)
            record_property("cell", f"{key}: the disk is full after {v.lower()}; {took:.1f} s after it is not, all is well")
    finally:
        world.end()
        unmount(state)
