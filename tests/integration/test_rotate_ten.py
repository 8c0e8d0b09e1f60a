"""Ten rotations while callers mint at full speed: no mint fails, none uses a dead key. And
afterwards no admin key, old or new, is in the memory of daemon or keeper or in any file; in
the daemon's it is at no time."""

import threading
import time

import pytest

from checker import history
from conftest import not_sanitized, only_root_looks, wait_for
from test_memory import find, find_in_registers, forms, matches, stopped
from test_rotate import alive, key_id, rotate, settled, under_way
from varlink import Error

ROTATIONS, MINTS = 10, 1000


@pytest.fixture
def daemon(daemon_stopped):
    daemon_stopped.settings["hsm"]["deadline"] = "2s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "2s"}
    return daemon_stopped.start()


class Callers:
    """Four, each with a connection of its own."""

    def __init__(self, daemon):
        self.daemon, self.stop, self.keys, self.failed = daemon, False, [], []
        self.threads = [threading.Thread(target=self.call) for _ in range(4)]
        for t in self.threads:
            t.start()

    def call(self):
        with self.daemon.attached() as c:
            while not self.stop:
                try:
                    self.keys.append(c.change("Mint", role="my-app").secret.decode())
                except (Error, OSError, EOFError) as e:
                    self.failed.append(str(e))
                    return

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(60)


def test_a_thousand_mints_across_ten_rotations(ready, service, record_property):
    began = time.monotonic()
    callers = Callers(ready)
    used = [key_id(ready)]
    try:
        for n in range(ROTATIONS):
            wait_for(lambda n=n: callers.failed or len(callers.keys) > n * MINTS // ROTATIONS, 120, "mints")
            used.append(rotate(ready)["admin_api_key_id"])
        wait_for(lambda: callers.failed or len(callers.keys) >= MINTS, 120, "mints")
    finally:
        callers.end()
    assert not callers.failed, callers.failed
    assert len(set(used)) == ROTATIONS + 1 and len(callers.keys) >= MINTS
    record_property("mints", f"{len(callers.keys)} mints across {ROTATIONS} rotations in {time.monotonic() - began:.1f} s")
    assert all(service.accepts(k) for k in callers.keys[:: MINTS // 100])
    wait_for(lambda: not under_way(ready), 60, "the rotations to end")
    settled(ready, service)
    # Each key made its part of them, and none was refused: only what a rotation tries is.
    posts = [r for r in history(service) if r["method"] == "POST" and r["path"].endswith("/service_accounts")]
    assert {r["status"] for r in posts} == {200} and len({r["key_id"] for r in posts}) == ROTATIONS + 1


def test_no_admin_key_is_left_anywhere(ready, service):
    only_root_looks()
    not_sanitized("a sanitizer keeps what was freed")
    keys, ids = [service.admin_key], {key_id(ready)}
    stop, seen = threading.Event(), []

    def watch():
        """The daemon's memory, again and again while it rotates."""
        while not stop.is_set():
            seen.append(find(ready.process.pid, list(keys)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    callers = Callers(ready)
    try:
        for _ in range(ROTATIONS):
            ids.add(rotate(ready)["admin_api_key_id"])
            keys[:] = [service.control(f"keys/{k['id']}")["value"] for k in service.control("state")["admin_keys"]]
            time.sleep(0.2)
        wait_for(lambda: not under_way(ready), 60, "the rotations to end")
    finally:
        callers.end()
        stop.set()
        watcher.join(60)
    assert not callers.failed and len(keys) == len(ids) == ROTATIONS + 1 and alive(service) == [key_id(ready)]
    assert len(seen) > 1 and not any(seen), seen
    time.sleep(1)
    keeper = ready.keeper()
    with stopped(ready.process.pid), stopped(keeper):
        assert find(ready.process.pid, keys) == []
        assert find(keeper, keys) == []
    for pid in (ready.process.pid, keeper):
        assert find_in_registers(pid, keys) == []
    wanted = forms(keys)
    for path in [p for p in ready.place.rglob("*") if p.is_file() and (ready.place / "double") not in p.parents]:
        assert not matches(wanted, path.read_bytes()), path
