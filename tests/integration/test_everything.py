"""Everything at once: callers mint at full speed, keep, give again, prove dead and revoke,
while the admin key and each of the HSM's keys rotate. No call fails, none uses a dead key,
each kept value is read back as it was, the log verifies from its first key, and one admin
key of ours is left. And afterwards neither admin key nor HMAC key is in the memory of daemon
or keeper, or in any file. HSMINT_LONG=1 is a thousand mints and more rotations."""

import base64
import hashlib
import hmac
import os
import random
import re
import subprocess
import sys
import threading
import time

import pytest

from auditcli import verdict
from checker import World, history
from conftest import PROJECT, not_sanitized, only_root_looks, wait_for
from faultyhsm import check_objects
from test_hsm_rotate import export, head, keys, records, vkeys
from test_hsm_rotate import rotate as rotate_hsm
from test_memory import find, find_in_registers, forms, matches, regions, stopped
from test_rotate import alive, key_id, settled, under_way
from test_rotate import rotate as rotate_admin
from varlink import Error

LONG = bool(os.environ.get("HSMINT_LONG"))
MINTS, ROUNDS = (1000, 4) if LONG else (160, 1)
KEYS = ["call", "log", "seal"]
ROLES = {"plain": {}, "kept": {"keep_value": True}, "again": {"reuse": True, "keep_value": True}, "proven": {"prove_death": True}}


@pytest.fixture
def daemon(daemon_stopped):
    d = daemon_stopped
    d.settings["hsm"]["deadline"] = "2s"
    d.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "2s"}
    return d.start()


@pytest.fixture
def busy(ready):
    with ready.attached() as c:
        for name, fields in ROLES.items():
            c.change("SetRole", name=name, fields={"project_id": PROJECT, "ttl": 3600, **fields})
    return ready


class Callers:
    """One of each role, and one more that reads what was kept."""

    def __init__(self, daemon):
        self.daemon, self.stop = daemon, False
        self.minted, self.failed, self.kept, self.again, self.read = [], [], {}, set(), 0
        self.threads = [threading.Thread(target=self.call, args=(role,)) for role in ROLES]
        self.threads.append(threading.Thread(target=self.read_kept))
        for t in self.threads:
            t.start()

    def call(self, role):
        try:
            with self.daemon.attached() as c:
                while not self.stop:
                    self.mint(c, role)
        except (Error, OSError, EOFError) as e:
            self.failed.append(f"{role}: {e}")

    def mint(self, c, role):
        reply = c.change("Mint", role=role)
        lease, key = reply["lease"]["lease_id"], reply.secret.decode()
        if role == "kept":
            self.kept[lease] = key
        elif role == "again":
            self.again.add((lease, key))
            return
        else:
            c.change("Revoke", lease_id=lease)
        self.minted.append(key)

    def read_kept(self):
        try:
            with self.daemon.attached() as c:
                while not self.stop:
                    self.read_one(c, random.choice(list(self.kept) or [None]))
        except (Error, OSError, EOFError) as e:
            self.failed.append(f"a kept value: {e}")

    def read_one(self, c, lease):
        if not lease:
            time.sleep(0.01)
            return
        value = c.call("ReadKey", lease_id=lease).secret.decode()
        if value != self.kept[lease]:
            self.failed.append(f"lease {lease}: another value than was kept")
        self.read += 1

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(60)
            assert not t.is_alive(), "a caller hangs"


def rotate_all(daemon, callers):
    """Each of the HSM's keys, and the admin key, while MINTS are made: how many."""
    n = 0
    for r in range(ROUNDS):
        for which in ("call", "admin", "seal", "log"):
            n += 1
            goal = n * MINTS // (ROUNDS * 4 + 1)
            wait_for(lambda goal=goal: callers.failed or len(callers.minted) >= goal, 180, "mints")
            if which == "admin":
                wait_for(lambda: callers.failed or not under_way(daemon), 60, "the admin key's rotation to end")
                rotate_admin(daemon)
            else:
                assert rotate_hsm(daemon, which)["state"] == "done"
    wait_for(lambda: callers.failed or len(callers.minted) >= MINTS, 180, "mints")
    return n


def test_everything_at_once(busy, service, place, record_property):
    began, first, before = time.monotonic(), vkeys(busy)[0], keys(busy)
    callers, used = Callers(busy), [key_id(busy)]
    try:
        n = rotate_all(busy, callers)
    finally:
        callers.end()
    assert not callers.failed, callers.failed
    assert len(callers.again) == 1, "reuse gave another one"
    with busy.attached() as c:
        for lease, key in [*callers.kept.items(), *callers.again]:
            assert c.call("ReadKey", lease_id=lease).secret.decode() == key
    assert all(service.accepts(k) for k in random.sample(list(callers.kept.values()), min(20, len(callers.kept))))
    after = keys(busy)
    assert all(before[key] != after[key] for key in KEYS), after
    check_objects(busy)
    # No call was refused for its key; the double knows which one it came with.
    posts = [r for r in history(service) if r["method"] == "POST" and r["path"].endswith("/service_accounts")]
    assert {r["status"] for r in posts} == {200} and len({r["key_id"] for r in posts}) == ROUNDS + len(used)
    wait_for(lambda: not under_way(busy), 60, "the rotations to end")
    settled(busy, service)
    assert alive(service) == [key_id(busy)]
    assert not records(busy, "rollback") and "resumed" not in head(busy) and "lost" not in head(busy)
    export(busy, place / "copy")
    verdict(place / "copy", "--key", first)
    record_property(
        "mints", f"{len(callers.minted)} mints, {callers.read} kept values read, {n} rotations, {time.monotonic() - began:.1f} s"
    )


# ---- what is left of keys ----


def marker_of(name):
    return name.rsplit("-", 1)[1]


def is_hmac_key(key, marker):
    """Does it make the ten last of a marker's 18?"""
    mac = hmac.digest(key, b"marker" + marker[:8].encode(), hashlib.sha256)
    return base64.b32encode(mac).decode().lower()[:10] == marker[8:]


HIGH = re.compile(rb"[\x80-\xff]")
ASCII = bytes(range(128))


def candidates(data, step):
    """Each 32 bytes that might be random: (offset, bytes). Of random ones some are no ASCII
    (a few in a million have less than four such), and no four are zeros."""
    at, end = 0, len(data) - 32
    while at <= end:
        high = HIGH.search(data, at)
        if not high:
            return
        at = max(at, high.start() - 31)
        at += -at % step
        piece = data[at : at + 32]
        zeros = piece.find(b"\0\0\0\0")
        if zeros >= 0:  # none that reaches over them
            at += zeros + 1
        else:
            if len(piece) == 32 and len(piece.translate(None, ASCII)) >= 4:
                yield at, piece
            at += step
        at += -at % step


WRITTEN = re.compile(rb"[0-9a-fA-F]{64}|[A-Za-z0-9+/]{43}=")


def written(data):
    """32 bytes in hex or base64."""
    for m in WRITTEN.finditer(data):
        text = m[0]
        yield m.start(), bytes.fromhex(text.decode()) if len(text) == 64 else base64.b64decode(text)


def hmac_key_in(data, marker, step):
    return [at for at, piece in (*candidates(data, step), *written(data)) if is_hmac_key(piece, marker)]


def hmac_key_in_memory(pid, marker):
    """Of what the process may write."""
    found = []
    for line, data in regions(pid):
        if line.split()[1].startswith("rw"):
            found += [(line.strip(), at) for at in hmac_key_in(data, marker, 8)]
    return found


CHILD = """
import ctypes, sys, time
key = bytearray.fromhex(sys.stdin.readline())
page = ctypes.create_string_buffer(4096)
page[512:544] = bytes(key)
print(1, flush=True)
time.sleep(60)
"""


def test_the_search_for_the_hmac_key_finds_it():
    only_root_looks()
    key = os.urandom(32)
    mac = hmac.digest(key, b"markerabcdefgh", hashlib.sha256)
    marker = "abcdefgh" + base64.b32encode(mac).decode().lower()[:10]
    for form in (key, key.hex().encode(), base64.b64encode(key)):
        assert hmac_key_in(b"\0" * 9001 + b"text" + form + b"\0" * 9000, marker, 1)
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1, text=True) as child:
        child.stdin.write(key.hex() + "\n")
        child.stdin.flush()
        child.stdout.readline()
        found = hmac_key_in_memory(child.pid, marker)
        child.kill()
    assert found


def test_no_key_is_left_anywhere(busy, service):
    only_root_looks()
    not_sanitized("a sanitizer keeps what was freed")
    callers = Callers(busy)
    values = [service.admin_key]
    try:
        for _ in range(ROUNDS):
            for which in KEYS:
                rotate_hsm(busy, which)
            wait_for(lambda: callers.failed or not under_way(busy), 60, "the admin key's rotation to end")
            rotate_admin(busy)
            values[:] = [service.control(f"keys/{k['id']}")["value"] for k in service.control("state")["admin_keys"]]
        wait_for(lambda: not under_way(busy), 60, "the rotations to end")
    finally:
        callers.end()
    assert not callers.failed and len(values) == ROUNDS + 1
    marker = marker_of(World(service).accounts[0]["name"])
    time.sleep(1)
    daemon, keeper = busy.process.pid, busy.keeper()
    with stopped(daemon), stopped(keeper):
        for pid in (daemon, keeper):
            assert find(pid, values) == []
            assert hmac_key_in_memory(pid, marker) == []
    for pid in (daemon, keeper):
        assert find_in_registers(pid, values) == []
    wanted = forms(values)
    for path in [p for p in busy.place.rglob("*") if p.is_file() and (busy.place / "double") not in p.parents]:
        data = path.read_bytes()
        assert not matches(wanted, data), path
        assert not hmac_key_in(data, marker, 1), path
