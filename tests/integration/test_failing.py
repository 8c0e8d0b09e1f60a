"""Each allocation of a mint in the daemon fails once, and each write and each fsync of the
store. No crash, no leak of a descriptor, no orphan: who asked is told, the next one is
served, and what was told is true.

Of the allocations, which are thousands, every so-and-so-manyth; all with HSMINT_LONG=1."""

import errno
import os
import random

import pytest

import checker
from conftest import not_sanitized, wait_for
from stopat import StoppedAt
from varlink import Error, request_id

LONG = bool(os.environ.get("HSMINT_LONG"))
SAMPLES = 150


@pytest.fixture
def daemon(place, token, service):
    not_sanitized("a sanitizer wants to be loaded first, and has its own malloc")
    d = StoppedAt(place, token, service)
    d.settings["service"]["send_signature"] = "yes"
    yield d.start().prepare()
    d.end()


class Failing:
    def __init__(self, daemon, service):
        self.daemon, self.service = daemon, service
        self.given, self.told = {}, {}

    def mint(self):
        """One mint, and every third is revoked again."""
        with self.daemon.attached(timeout=120) as c:
            reply = c.call("Mint", role="my-app", request_id=request_id())
            lease = reply["lease"]["lease_id"]
            self.given[lease] = reply.secret.decode()
            if len(self.given) % 3 == 0:
                key = self.given.pop(lease)
                c.call("Revoke", lease_id=lease, request_id=request_id())
                assert not self.service.accepts(key), "revoked, and it works"

    def attempt(self):
        try:
            self.mint()
            told = "answered"
        except Error as e:
            told = e.name
        except (OSError, EOFError):
            told = "cut off"  # no memory for a connection
        self.told[told] = self.told.get(told, 0) + 1
        assert self.daemon.process.poll() is None, f"the daemon ended: {self.daemon.log()[-3000:]}"
        return told

    def works(self):
        try:
            self.mint()
            return True
        except (Error, OSError, EOFError):
            return False

    def count(self, what):
        """How many there are in one mint and revocation."""
        most = 0
        for _ in range(3):
            self.daemon.fail(what, 1 << 30, 0)
            self.mint()
            most = max(most, self.daemon.get("seen"))
        self.daemon.set(fail=0)
        return most

    def each(self, what, which, error):
        for nth in which:
            self.daemon.fail(what, nth, error)
            told = self.attempt()
            self.daemon.set(fail=0)
            if told == "Keeper":
                # A channel that broke off has ended the keeper, whose next start waits
                # ever longer: the next allocation is to be reached all the same.
                self.daemon.kill()
                self.daemon.start()
                wait_for(self.works, 30, "a mint after a restart")
        wait_for(self.works, 30, f"a mint after {what} failed")

    def settle(self):
        self.daemon.kill()
        self.daemon.start()
        wait_for(self.works, 30, "a mint after a restart")
        assert checker.reconcile(self.daemon)["complete"]

        def settled():
            leases = checker.Store(self.daemon).ids("active")
            return {a["id"] for a in self.service.accounts()} == leases

        wait_for(settled, 60, "the leases to settle")
        for lease, key in self.given.items():
            assert self.service.accepts(key), f"lease {lease}: a key that was given does not work"
        world = checker.World(self.service)
        store = checker.Store(self.daemon)
        checker.every_account_was_intended(world, store)
        return checker.every_call_was_intended(world, checker.Log(store.lines))


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def run(daemon, service, what, errors, record_property):
    f = Failing(daemon, service)
    total = f.count(what)
    assert total > 2, f"no {what} was seen"
    which = list(range(1, total + 1))
    if what == "malloc" and not LONG:
        which = sorted(random.sample(which, min(SAMPLES, total)))
    f.works()
    before = open_files(daemon)
    for error in errors:
        f.each(what, which, error)
    # Connections of readers are kept; nothing else is.
    wait_for(lambda: open_files(daemon) <= before + 30, 5, f"descriptors: {before} before")
    calls = f.settle()
    record_property("run", f"{what}: {len(which)} of {total}, {len(errors)} errors, {calls} calls; told {f.told}")


def test_allocations(daemon, service, record_property):
    run(daemon, service, "malloc", [errno.ENOMEM], record_property)


def test_writes(daemon, service, record_property):
    run(daemon, service, "write", [errno.EIO, errno.ENOSPC], record_property)


def test_syncs(daemon, service, record_property):
    run(daemon, service, "sync", [errno.EIO], record_property)
