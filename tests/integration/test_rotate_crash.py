"""The crash matrix of rotations: SIGKILL of the daemon, and of its keeper, before and after
each call of one, and each way in which a reply can go wrong. Each cell is an organisation
with a double of its own. Afterwards, and with nothing done by hand: exactly one admin key
at each of them, the daemon's, and it works. The table is printed."""

import contextlib
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from checker import reconcile
from clocks import spawn_with_clock
from conftest import PROJECT, Service, wait_for
from varlink import Error, request_id

LONG = os.environ.get("HSMINT_LONG")
KEYS, ONE_KEY = "*/admin_api_keys", "*/admin_api_keys/*"
LOSE = {"kind": "drop", "method": "POST", "path": KEYS}
PASS = {"kind": "hang", "ms": 0, "method": "GET", "path": KEYS}

# The calls of a rotation: what leads to it, its method and its path.
CALLS = {
    "make": ([], "POST", KEYS),
    "look": ([LOSE], "GET", KEYS),
    "prove": ([], "GET", KEYS),
    "retire": ([], "DELETE", ONE_KEY),
    "confirm": ([PASS], "GET", KEYS),
    "drop": ([LOSE], "DELETE", ONE_KEY),
}
# What becomes of a reply, or of the call. The daemon waits for a second.
REPLIES = {
    "never arrived": {"kind": "drop", "when": "before"},
    "lost": {"kind": "drop"},
    "500 after": {"kind": "status", "status": 500, "when": "after"},
    "429": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "doubled, last": {"kind": "twice"},
    "refused": {"kind": "status", "status": 403},
    "reset before": {"kind": "reset", "when": "before"},
    "reset after": {"kind": "reset"},
    "500 before": {"kind": "status", "status": 500},
    "arrived late": {"kind": "hang", "ms": 1500},
    "answered late": {"kind": "hang", "ms": 1500, "when": "after"},
    "cut short": {"kind": "truncate"},
    "doubled, first": {"kind": "twice", "reply": "first"},
    "refused as unknown": {"kind": "status", "status": 401},
}
USUAL = {call: ["lost", "500 before"] for call in CALLS} | {"make": list(REPLIES), "retire": list(REPLIES)[:6]}
CELLS = [(call, reply) for call in CALLS for reply in (REPLIES if LONG else USUAL[call])]


class Cell:
    """An organisation, its double, and one fault there."""

    def __init__(self, daemon, first, n, call):
        self.daemon, self.org, self.call = daemon, f"org{n}", call
        place = daemon.place / self.org
        shutil.copytree(first.directory, place / "double", ignore=shutil.ignore_patterns("log", "admin-key"))
        self.service = Service(place)
        self.thread, self.told = None, []

    def prepare(self):
        with self.daemon.attached() as c:
            c.change("Init", org=self.org)
            fields = {"api_endpoint": self.service.url, "organization_id": "org-adminsim"}
            c.change("SetConfig", org=self.org, secret=self.service.admin_key.encode(), fields=fields, keep_first=True)

    def fault(self, **fault):
        before, method, path = CALLS[self.call]
        self.service.control("faults", [*before, fault | {"method": method, "path": path}])

    def pending(self):
        return self.service.control("counters")["faults_pending"]

    def rotate(self):
        def run():
            try:
                with self.daemon.attached() as c:
                    c.call("RotateConfig", org=self.org, request_id=request_id())
                self.told.append("rotated")
            except Error as e:
                self.told.append(e.name)
            except (OSError, EOFError):
                self.told.append("cut off")

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def config(self):
        with self.daemon.attached() as c:
            return c.call("GetConfig", org=self.org)["config"]

    def alive(self):
        return [k["id"] for k in self.service.control("state?alive=1")["admin_keys"]]

    def is_idle(self):
        config = self.config()
        return not config.get("rotation") and not config["retiring"]

    def is_settled(self):
        return self.is_idle() and self.alive() == [self.config()["admin_api_key_id"]]

    def works(self):
        """The daemon's key is the one, and it opens; no other ever made does."""
        with self.daemon.attached() as c:
            c.change("SetRole", org=self.org, name=f"role-{self.org}", fields={"project_id": PROJECT, "ttl": 60})
        for key in self.service.control("state")["admin_keys"]:
            value = self.service.control(f"keys/{key['id']}")["value"]
            status, _ = self.service.request("GET", f"{self.service.url}/organization/projects", bearer=value)
            assert (status == 200) == (key["id"] in self.alive()), key


@pytest.fixture
def daemon(daemon_stopped):
    d = daemon_stopped
    d.settings["hsm"]["deadline"] = "1s"
    d.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s"}
    d.settings["daemon"]["reconcile"] = 0
    with contextlib.ExitStack() as doubles:
        d.doubles = doubles
        yield d
        d.stop()


def cells_of(daemon, service, calls):
    """Initialised, one a call."""
    with daemon.attached() as c:
        c.change("Init")
    cells = []
    for n, call in enumerate(calls):
        cells.append(Cell(daemon, service, n, call))
        daemon.doubles.callback(cells[-1].service.stop)
        cells[-1].prepare()  # SoftHSM fails, here and there, to make two objects at a time
    return cells


def settle(daemon, cells, seconds):
    """Nobody does anything; but what a POST that was served twice left is reconcile's."""
    end = time.monotonic() + seconds
    left = cells
    while left and time.monotonic() < end:
        left = [c for c in left if not c.is_settled()]
        if left and all(c.is_idle() for c in left):
            reconcile(daemon)
        time.sleep(0.3)
    assert not left, [(c.org, c.call, c.told, c.alive(), c.config()) for c in left]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Cell.works, cells))


def test_replies(daemon, service, record_property):
    """All at once; then SIGKILL, and nothing but time."""
    spawn_with_clock(daemon)
    began = time.monotonic()
    cells = cells_of(daemon, service, [call for call, _ in CELLS])
    for cell, (_, reply) in zip(cells, CELLS):
        cell.fault(**REPLIES[reply])
    for cell in cells:
        cell.rotate()
    for cell in cells:
        cell.thread.join(60)
    wait_for(lambda: not sum(c.pending() for c in cells), 60, "every fault to be met")
    daemon.kill()
    spawn_with_clock(daemon, 100, 100)  # what never arrived is looked for so long
    settle(daemon, cells, 90)
    for cell, (call, reply) in zip(cells, CELLS):
        made = cell.service.control("counters")["admin_keys_created"] - 1
        record_property("cell", f"{call:<9}{reply:<20}{cell.told[-1]:<18}made: {made}, alive: 1, works")
    record_property("cells", f"{len(cells)} cells in {time.monotonic() - began:.1f} s")


def kill(daemon, victim):
    if victim == "keeper":
        os.kill(wait_for(daemon.keeper, 10, "a keeper"), signal.SIGKILL)
    else:
        daemon.kill()
        daemon.spawn()


def held(cell):
    return cell.service.control("holds")["held"]


def meet(daemon, waiting):
    """Rotations, until each has been killed in its call: {cell: victim}."""
    end = time.monotonic() + 240
    for cell in waiting:
        cell.rotate()
    while waiting:
        assert time.monotonic() < end, [(c.org, c.call, c.told, c.pending(), c.config()) for c in waiting]
        for cell in [c for c in waiting if held(c)][:1]:
            kill(daemon, waiting.pop(cell))
            cell.service.control("holds", method="DELETE")
            wait_for(daemon.answers, 15, "the daemon to start")
        for cell in waiting:  # killed for another cell's sake before it was under way
            if not cell.thread.is_alive() and not held(cell) and cell.is_idle():
                cell.rotate()
        time.sleep(0.01)


def test_killed(daemon, service, record_property):
    """Each cell waits in its call until somebody is killed there: one kill a cell."""
    daemon.start()
    began = time.monotonic()
    steps = [(call, when, victim) for call in CALLS for when in ("before", "after") for victim in ("keeper", "daemon")]
    cells = cells_of(daemon, service, [call for call, _, _ in steps])
    for cell, (_, when, _) in zip(cells, steps):
        cell.fault(kind="hold", when=when)
    # Callers make and prove, side by side; the rest is one thread's of the daemon.
    victims = {cell: victim for cell, (_, _, victim) in zip(cells, steps)}
    for cell in [c for c in cells if c.call in ("make", "prove")]:
        meet(daemon, {cell: victims.pop(cell)})
    meet(daemon, victims)
    for cell in cells:
        cell.thread.join(60)
        assert not cell.thread.is_alive(), f"{cell.call} hangs"
    settle(daemon, cells, 120)
    for cell, (call, when, victim) in zip(cells, steps):
        record_property("cell", f"{call:<9}{when:<8}{victim:<8}{cell.told[-1]:<18}alive: 1, works")
    record_property("cells", f"{len(cells)} kills in {time.monotonic() - began:.1f} s")
