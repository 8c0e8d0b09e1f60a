"""The crash matrix: SIGKILL of the daemon, and of its keeper, at each named step of what
calls the service, and each way in which the service's reply can go wrong. Afterwards, and
with nothing done by hand: no account that the store does not know, every key that a caller
was given works, everything else is dead. The table is printed. The usual run meets each
step with each victim, each way and each operation, in fewer cells; HSMINT_LONG=1 is all."""

import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from checker import reconcile
from conftest import PROJECT, not_sanitized, wait_for
from stopat import STEPS, StoppedAt
from varlink import Error, request_id

LONG = bool(os.environ.get("HSMINT_LONG"))
LIVE, ACTIVE = (0, 1, 2), (1,)
# What the double does: a request is there, and has no effect yet; it has it.
HELD = {"request": "before", "effect": "after"}
ORDER = [*STEPS[1:7], "keeper-execute", "request", "effect", "keeper-executed", *STEPS[7:12], "keeper-sign", "keeper-signed"]
METHODS = {
    "mint": "POST",
    "renew": "RENEW",
    "revoke": "DELETE",
    "sweep": "DELETE",
    "search": "GET",
    "reconcile": "GET",
    "remove": "DELETE",
}
ALONE = ("sweep", "search", "reconcile", "remove")  # no caller waits for it


@pytest.fixture
def daemon(place, token, service):
    not_sanitized("a sanitizer wants to be loaded first")
    d = StoppedAt(place, token, service)
    d.settings["service"] |= {"connect_timeout": "2s", "call_timeout": "4s"}
    yield d.start().prepare()
    d.end()


def store(daemon, project, states):
    """account name → id of the project's leases that are in one of the states."""
    db = sqlite3.connect(f"file:{next(daemon.state.glob('*.db'))}?mode=ro", uri=True)
    try:
        marks = ",".join("?" * len(states))
        sql = f"SELECT account_name, account_id FROM lease WHERE project = ? AND state IN ({marks})"
        return dict(db.execute(sql, (project, *states)))
    finally:
        db.close()


class Matrix:
    """One daemon, cell after cell, and what has to be true in the end."""

    def __init__(self, daemon, service, project=PROJECT, role="my-app"):
        self.daemon, self.service, self.project, self.role = daemon, service, project, role
        self.given = {}  # lease id → key: callers rely on them
        self.steps = 0
        self.taken = {}  # as their leases say: dead, or never revoked

    # ---- the operations: each starts, and says of which method its calls are ----

    def call(self, method, **parameters):
        with self.daemon.attached() as c:
            return c.call(method, request_id=request_id(), **parameters)

    def lease(self, **parameters):
        """A lease from before."""
        reply = wait_for(lambda: self.quietly("Mint", role=self.role, **parameters), 20, "a mint that works")
        lease, key = reply["lease"]["lease_id"], reply.secret.decode()
        self.given[lease] = key
        return lease

    def quietly(self, method, **parameters):
        try:
            return self.call(method, **parameters)
        except Error:
            return None

    def mint(self):
        reply = self.call("Mint", role=self.role)
        self.given[reply["lease"]["lease_id"]] = reply.secret.decode()

    def renew(self, lease):
        self.call("Renew", lease_id=lease, ttl=7200)

    def revoke(self, lease):
        self.taken[lease] = self.given.pop(lease)
        self.call("Revoke", lease_id=lease)

    def sweep(self, connection):
        self.taken |= self.bound
        connection.call("EndSession", session=1)

    def search(self):
        """A mint whose answer is lost: its account is searched."""
        self.service.fault(kind="drop", method="POST", path=self.path("POST"))
        self.mint()

    def reconcile(self):
        """Of an account that a POST that was served twice has left."""
        self.call("Reconcile")

    remove = reconcile

    def prepare(self, name):
        if name in ("reconcile", "remove"):
            with self.daemon.attached() as c:
                wait_for(lambda: c.call("ReconcileStatus")["report"].get("state") != "running", 20, "the run before")
            self.fault("POST", kind="twice", reply="first")
            self.lease()
        if name in ("renew", "revoke"):
            return [self.lease()]
        if name == "sweep":
            connection = self.daemon.attached()
            reply = connection.change("Mint", role=self.role, bound=True, session=1)
            self.bound = {reply["lease"]["lease_id"]: reply.secret.decode()}
            return [connection]
        return []

    # ---- a cell ----

    def path(self, method):
        project = f"*/{self.project}"
        if method == "RENEW":
            return project + "/api_keys/*"
        return project + "/service_accounts" + ("/*" if method == "DELETE" else "")

    def fault(self, method, **fault):
        self.service.fault(method="POST" if method == "RENEW" else method, path=self.path(method), **fault)

    def reach(self, name, step):
        """Arms it; returns what is true once it is reached, and what lets it go on."""
        method = METHODS[name]
        if step in HELD:
            self.fault(method, kind="hold", when=HELD[step])
            return (
                lambda: self.service.control("holds")["held"],
                lambda: self.service.control("holds", method="DELETE"),
            )
        self.steps += 1
        # Several GETs make a run: the projects, their accounts, the admin keys.
        skip = self.steps % 3 if name == "reconcile" else 0
        self.daemon.stop_at(step, "POST" if method == "RENEW" else method, skip)
        return self.daemon.stopped, self.daemon.go_on

    def cell(self, name, step, victim):
        """What the caller was told. A commit that another thread made for ours has no
        step of ours: once more, then."""
        for _ in range(5):
            thread, said, there, go_on = self.begin(name, step)
            if not there:
                go_on()
                thread.join(30)
                self.service.control("faults", method="DELETE")
                continue
            self.kill(victim)
            go_on()
            thread.join(30)
            assert not thread.is_alive(), f"{name} hangs after SIGKILL of the {victim} at {step}"
            wait_for(self.daemon.answers, 15, "the daemon to start")
            self.service.control("faults", method="DELETE")
            self.look()
            return said[0]
        pytest.fail(f"{name} did not come to {step}: {said}")

    def begin(self, name, step):
        """(thread, what it was told, whether it is at that step, what lets it go on)."""
        arguments = self.prepare(name)
        reached, go_on = self.reach(name, step)
        said = []
        thread = threading.Thread(target=lambda: said.append(self.told(name, arguments)))
        thread.start()
        # Who waits for nobody is told at once.
        end = time.monotonic() + (3 if name in ALONE else 10)
        while not reached() and not (said and name not in ALONE) and time.monotonic() < end:
            time.sleep(0.005)
        return thread, said, reached(), go_on

    def told(self, name, arguments):
        """Runs the operation: what its caller is told."""
        try:
            getattr(self, name)(*arguments)
            return "answered"
        except Error as e:
            return e.name
        except (OSError, EOFError):
            return "cut off"

    def kill(self, victim):
        if victim == "keeper":
            os.kill(self.daemon.keeper(), signal.SIGKILL)
        else:
            self.daemon.kill()
            self.daemon.spawn()

    def look(self):
        """At once: the store knows what there is."""
        known, exist = store(self.daemon, self.project, LIVE), {a["name"] for a in self.service.accounts(self.project)}
        assert exist <= set(known), "accounts that the store does not know"

    def settled(self):
        return {a["id"] for a in self.service.accounts(self.project)} == set(store(self.daemon, self.project, ACTIVE).values())

    def settle(self):
        """In the end: what is alive is a lease, what was given works, the rest is dead."""
        wait_for(self.settled, 60, f"the leases of {self.project} to settle")
        with self.daemon.attached() as c:
            for lease, key in self.given.items():
                assert self.service.accepts(key), f"lease {lease}: a key that was given does not work"
            for lease, key in self.taken.items():
                state = c.call("GetLease", lease_id=lease)["lease"]["state"]
                assert self.service.accepts(key) == (state == "active"), f"lease {lease} is {state}"


CELLS = [(step, victim) for step in ORDER for victim in ("keeper", "daemon")]


def cells_of(name):
    """All; in the usual run the operations take turns."""
    found = []
    for i, (step, victim) in enumerate(CELLS):
        # Nobody waits for an answer.
        able = [n for n in METHODS if step != "answer" or n not in ALONE]
        if name in able and (LONG or able[i % len(able)] == name):
            found.append((step, victim))
    return found


@pytest.mark.parametrize("name", METHODS)
def test_killed_at(name, daemon, service, record_property):
    m = Matrix(daemon, service)
    began = time.monotonic()
    for step, victim in cells_of(name):
        t = time.monotonic()
        said = m.cell(name, step, victim)
        record_property("cell", f"{name:<11}{step:<18}{victim:<8}{said} {time.monotonic() - t:.2f}")
    reconcile(daemon)
    m.settle()
    record_property("cells", f"{name}: all cells in {time.monotonic() - began:.1f} s")


def test_renewed_while_its_end_comes(daemon, service):
    """The sweeper has signed its DELETE; then the renewal is in the store, and told."""
    with daemon.attached() as c:
        reply = c.change("Mint", role="my-app", ttl=2)
        lease, key = reply["lease"]["lease_id"], reply.secret.decode()
        daemon.stop_at("signed", "DELETE")
        wait_for(daemon.stopped, 10, "the sweeper")
        end = c.change("Renew", lease_id=lease, ttl=60)["lease"]["expires_ms"]
        daemon.go_on()
        time.sleep(0.5)
        now = c.call("GetLease", lease_id=lease)["lease"]
        assert (now["state"], now["expires_ms"]) == ("active", end) and service.accepts(key)


def test_what_is_gone_holds_nobody_up(daemon, service):
    """Accounts that somebody else deleted. The 404s of accounts so young are not believed,
    but that is no failure of the service: what is due goes on."""
    with daemon.attached() as c:
        for _ in range(12):
            lease = c.change("Mint", role="my-app", bound=True, session=1)["lease"]
            service.control(f"service_accounts/{lease['service_account_id']}", method="DELETE")
        c.call("EndSession", session=1)
        time.sleep(5)  # looked at again
        key = c.change("Mint", role="my-app", bound=True, session=2).secret.decode()
        c.call("EndSession", session=2)
        wait_for(lambda: not service.accepts(key), 2, "a key to die")


# What becomes of a reply, or of the call. The daemon waits for a second.
REPLIES = {
    "never arrived": {"kind": "drop", "when": "before"},
    "lost": {"kind": "drop"},
    "reset before": {"kind": "reset", "when": "before"},
    "reset after": {"kind": "reset"},
    "500 before": {"kind": "status", "status": 500},
    "500 after": {"kind": "status", "status": 500, "when": "after"},
    "429": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "delayed": {"kind": "hang", "ms": 300},
    "arrived late": {"kind": "hang", "ms": 1500},
    "answered late": {"kind": "hang", "ms": 1500, "when": "after"},
    "cut short": {"kind": "truncate"},
    "doubled, last": {"kind": "twice"},
    "doubled, first": {"kind": "twice", "reply": "first"},
}


def replies_go_wrong(daemon, service, which, record_property):
    """All cells at once, each in a project of its own; then SIGKILL, restart, reconcile."""
    daemon.stop()
    daemon.settings["service"]["call_timeout"] = "1s"
    daemon.start()
    cells, told = {}, {}
    with daemon.attached() as c:
        for name, reply in which:
            id = f"{name}-{len(cells)}"
            service.control("projects", {"id": "proj-" + id})
            c.change("SetRole", name=id, fields={"project_id": "proj-" + id, "ttl": 3600, "max_ttl": 86400})
            cells[name, reply] = Matrix(daemon, service, "proj-" + id, id)

    def run(cell):
        name, reply = cell
        arguments = cells[cell].prepare(name)
        cells[cell].fault(METHODS[name], **REPLIES[reply])
        told[cell] = cells[cell].told(name, arguments)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, cells))
    wait_for(lambda: not service.control("counters")["faults_pending"], 60, "every reply to be asked for")
    wait_for(lambda: not service.control("counters")["in_flight"], 10, "late replies")
    daemon.kill()
    daemon.start()
    report = reconcile(daemon)
    assert report["complete"], report
    for (name, reply), m in cells.items():
        m.settle()
        left = len(service.accounts(m.project))
        record_property("cell", f"{name:<11}{reply:<18}{told[name, reply]:<16}alive: {left}")


def test_replies(daemon, service, record_property):
    names = list(METHODS)
    cells = [(n, r) for i, r in enumerate(REPLIES) for n in (names if LONG else (names[i % 7], names[(i + 3) % 7]))]
    replies_go_wrong(daemon, service, cells, record_property)
