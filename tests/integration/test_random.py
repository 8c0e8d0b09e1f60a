"""Eight callers, a service at which anything goes wrong at any time, and a daemon and a
keeper that are killed now and then. In the end: every account was intended, every intent
came to an end, every call is in the log, and no key that a caller had failed it before its
time.

For SECONDS (20); ten minutes with HSMINT_LONG=1, as `make check-long` does. A seed is told
and can be given again: HSMINT_SEED."""

import os
import random
import signal
import threading
import time

import pytest

import checker
from conftest import PROJECT, wait_for
from varlink import Error, request_id

LONG = bool(os.environ.get("HSMINT_LONG"))
SECONDS = float(os.environ.get("HSMINT_SECONDS") or (600 if LONG else 20))
SEED = int(os.environ.get("HSMINT_SEED") or random.randrange(1 << 32))
CALLERS = 8
TTL = 4  # seconds, at most
WINDOW = 90  # how long the sweeper looks for an account that was never made
PATHS = {
    "POST": [f"*/{PROJECT}/service_accounts", "*/api_keys/*"],
    "DELETE": ["*/service_accounts/*"],
    "GET": ["*/service_accounts"],
}
FAULTS = [
    {"kind": "drop"},
    {"kind": "drop", "when": "before"},
    {"kind": "reset"},
    {"kind": "reset", "when": "before"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503, "when": "after"},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    {"kind": "status", "status": 408, "when": "after"},
    {"kind": "hang", "ms": 300},
    {"kind": "hang", "ms": 1500},
    {"kind": "hang", "ms": 1500, "when": "after"},
    {"kind": "truncate"},
    {"kind": "not_json"},
    {"kind": "omit", "fields": ["id"]},
    {"kind": "omit", "fields": ["api_key.value"]},
    {"kind": "ignore_expiry"},
    {"kind": "twice"},
    {"kind": "twice", "reply": "first"},
]


class Caller(threading.Thread):
    def __init__(self, run, number):
        super().__init__()
        self.run_, self.dice = run, random.Random(f"{SEED}/{number}")
        self.kept = []  # (lease id, key)
        self.counts = {}

    def run(self):
        while not self.run_.stop.is_set():
            what = self.dice.choice([self.mint, self.mint, self.bound, self.renew, self.revoke, self.use])
            try:
                told = what() or "ok"
            except Error as e:
                told = e.name
            except (OSError, EOFError):
                told = "cut off"
            except BaseException as e:  # the checker's own
                self.run_.wrong.append(f"{what.__name__}: {e!r}")
                return
            key = what.__name__, told
            self.counts[key] = self.counts.get(key, 0) + 1
            if told != "ok":
                self.run_.stop.wait(0.05)

    def connection(self):
        return self.run_.daemon.attached(timeout=120)

    def mint(self):
        asked = time.time()
        with self.connection() as c:
            reply = c.change("Mint", role="my-app", ttl=self.dice.randint(1, TTL))
        lease = reply["lease"]
        # A service that rounds, or ends it sooner, says so in the lease.
        self.kept.append([lease["lease_id"], reply.secret.decode(), lease["expires_ms"] / 1000])
        assert lease["expires_ms"] / 1000 <= asked + TTL + 31, "it lives longer than asked"

    def bound(self):
        with self.connection() as c:
            c.change("Mint", role="my-app", bound=True, session=1, ttl=TTL)
            if self.dice.random() < 0.5:
                c.call("EndSession", session=1)

    def renew(self):
        if not self.kept:
            return "none"
        one = self.dice.choice(self.kept)
        with self.connection() as c:
            lease = c.change("Renew", lease_id=one[0], ttl=TTL)["lease"]
        one[2] = max(one[2], lease["expires_ms"] / 1000)

    def revoke(self):
        if not self.kept:
            return "none"
        one = self.kept.pop(self.dice.randrange(len(self.kept)))
        with self.connection() as c:
            c.change("Revoke", lease_id=one[0])

    def use(self):
        """A key works until its end."""
        if not self.kept:
            return "none"
        one = self.dice.choice(self.kept)
        service = self.run_.service
        status, _ = service.request("GET", service.url + "/models", bearer=one[1])
        if status == 401 and time.time() < one[2] - 0.2:
            self.run_.wrong.append(f"the key of lease {one[0]} was dead {one[2] - time.time():.1f} s before its end")
        if time.time() > one[2]:
            self.kept.remove(one)


class Run:
    def __init__(self, daemon, service):
        self.daemon, self.service = daemon, service
        self.stop, self.wrong, self.kills, self.faults = threading.Event(), [], 0, 0
        self.dice = random.Random(SEED)

    def trouble(self):
        method = self.dice.choice(["POST", "POST", "DELETE", "GET"])
        fault = {**self.dice.choice(FAULTS), "method": method, "path": self.dice.choice(PATHS[method])}
        self.service.control("faults", fault)
        self.faults += 1
        if self.dice.random() < 0.05:
            settings = {"latency_ms": self.dice.choice([0, 2, 30]), "rate_limit": self.dice.choice([0, 0, 60])}
            self.service.control("settings", {**settings, "rate_window_ms": 1000})

    def kill(self):
        self.kills += 1
        if self.dice.random() < 0.5:
            self.daemon.kill()
            self.daemon.start()
        elif pid := self.daemon.keeper():
            os.kill(pid, signal.SIGKILL)

    def go(self):
        callers = [Caller(self, n) for n in range(CALLERS)]
        for c in callers:
            c.start()
        end, next_kill = time.monotonic() + SECONDS, time.monotonic() + 2
        try:
            while time.monotonic() < end and not self.wrong:
                self.trouble()
                if time.monotonic() > next_kill:
                    self.kill()
                    next_kill = time.monotonic() + self.dice.uniform(0.5, 5)
                time.sleep(self.dice.uniform(0, 0.1))
        finally:
            self.stop.set()
            for c in callers:
                c.join()
        return callers


@pytest.fixture
def daemon(daemon_stopped):
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s", "send_signature": "yes"}
    return daemon_stopped.start().prepare()


def settle(run):
    """All due is done: nothing is alive, and no lease waits but for accounts that were never made."""
    run.service.control("faults", method="DELETE")
    run.service.control("reset", {"settings": True})
    wait_for(lambda: not run.service.control("counters")["in_flight"], 10, "late calls")
    run.daemon.kill()
    run.daemon.start()
    report = checker.reconcile(run.daemon)
    assert report["complete"], report

    def behind():
        with run.daemon.attached() as c:
            n = c.call("Status")["status"]["leases"]
        return n["pending"] + n["active"] + n["revoking"]

    def quiet():
        # What was made lately may still show itself: the sweeper looks for that long.
        store = checker.Store(run.daemon)
        young = time.time() * 1000 - WINDOW * 1000
        left = [x for x in store.leases if x["state"] != "revoked" and (x["state"] == "active" or x["issued_ms"] < young)]
        return not left and not run.service.alive()

    if LONG:
        # What piled up while the service was ill goes on ending, however long that takes here.
        began, first, at = time.monotonic(), behind(), time.monotonic()
        left = first
        while left:
            time.sleep(1)
            before, left = left, behind()
            if left < before:
                at = time.monotonic()
            assert time.monotonic() - at < WINDOW + 60, f"{left} of {first} leases do not end"
        print(f"# {first} leases ended in {time.monotonic() - began:.0f} s")
    wait_for(quiet, 60, "every key to die")


def tell(run):
    """What the log has about the leases that went wrong."""
    for r in checker.Log(checker.Store(run.daemon).lines).records:
        if r.get("lease") and any(r["lease"] in text for text in run.wrong):
            print({k: r[k] for k in ("time", "kind", "purpose", "fate", "status", "result", "expires", "reason") if k in r})


def test_random_faults(daemon, service, place, record_property):
    print(f"HSMINT_SEED={SEED}")
    run = Run(daemon, service)
    callers = run.go()
    if run.wrong:
        tell(run)
    assert not run.wrong, run.wrong
    settle(run)
    world = checker.World(service)
    store = checker.Store(daemon)
    log = checker.Log(store.lines)
    assert service.alive() == 0, [a["name"] for a in service.accounts()]
    accounts = checker.every_account_was_intended(world, store)
    calls = checker.every_call_was_intended(world, log)
    record_property("verdict", checker.verify(daemon, place))
    told = {}
    for c in callers:
        for key, n in c.counts.items():
            told[key] = told.get(key, 0) + n
    minted = told.get(("mint", "ok"), 0)
    assert minted > SECONDS / 4, f"hardly anything was minted: {told}"
    record_property("run", f"seed {SEED}: {SECONDS:.0f} s, {run.faults} faults, {run.kills} kills")
    record_property("done", f"{accounts} accounts, {len(store.leases)} leases, {calls} calls, {len(log.records)} records")
    for (what, said), n in sorted(told.items()):
        record_property("told", f"{what:<8}{said:<24}{n}")
