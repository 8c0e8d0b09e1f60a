"""SIGKILL of daemon or keeper in the middle of many mints: afterwards the
service has no account that the store does not know, and each that lives is a
lease; the log verifies, and holds every call that the service served.

Twenty of them; a hundred with HSMINT_LONG=1, as `make check-long` does."""

import os
import random
import signal
import sqlite3
import threading
import time

import pytest

import checker
from conftest import wait_for
from varlink import Error, request_id

MINTS = 200
CALLERS = 20
ROUNDS = 50 if os.environ.get("HSMINT_LONG") else 10  # for each victim
LIVE = (0, 1, 2)  # pending, active, revoking


def names_in_store(daemon, states):
    db = sqlite3.connect(f"file:{next(daemon.state.glob('*.db'))}?mode=ro", uri=True)
    try:
        marks = ",".join("?" * len(states))
        return {n for (n,) in db.execute(f"SELECT account_name FROM lease WHERE state IN ({marks})", states)}
    finally:
        db.close()


def mint_many(daemon, answers):
    """MINTS mints by CALLERS threads; each notes what it was told."""

    def caller():
        for _ in range(MINTS // CALLERS):
            try:
                with daemon.attached() as c:
                    reply = c.call("Mint", role="my-app", request_id=request_id())
                    answers.append(reply["lease"]["service_account"])
            except (Error, OSError, EOFError):
                pass

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for t in threads:
        t.start()
    return threads


def serves(daemon):
    """Does a mint work? A keeper that died often is started again slowly."""
    try:
        with daemon.attached() as c:
            return c.call("Mint", role="my-app", request_id=request_id()).secret
    except Error:
        return None


def victim_pid(daemon, victim):
    return daemon.process.pid if victim == "daemon" else daemon.keeper()


@pytest.fixture
def ready(daemon_stopped):
    daemon_stopped.settings["service"]["send_signature"] = "yes"
    return daemon_stopped.start().prepare()


@pytest.mark.parametrize("victim", ["daemon", "keeper"])
def test_killed_during_mints(ready, service, victim, place, record_property):
    service.control("settings", {"latency_ms": 3, "latency_jitter_ms": 10})
    told = 0
    for n in range(ROUNDS):
        answers = []
        wait_for(lambda: serves(ready), 30, "a mint that works")
        before = service.control("counters")["accounts_created"]
        threads = mint_many(ready, answers)
        wait_for(lambda: service.control("counters")["accounts_created"] > before, 20, "the first mint")
        time.sleep(random.uniform(0, 0.15))
        os.kill(victim_pid(ready, victim), signal.SIGKILL)
        if victim == "daemon":
            ready.process.wait(10)
        for t in threads:
            t.join(60)
        if victim == "daemon":
            ready.start()
        told += len(answers)

        # The store first: the sweeper is at work, and what it ends is in neither.
        known, leases = names_in_store(ready, LIVE), names_in_store(ready, (1,))
        exist = {a["name"] for a in service.accounts()}
        assert exist <= known, f"round {n}: accounts that the store does not know"
        # What a caller was told is a lease, and lives.
        assert set(answers) <= leases, f"round {n}: an answer without a lease"
        assert set(answers) <= exist, f"round {n}: an answer without an account"
    assert told, "every mint failed: the test saw nothing"

    # The sweeper finds those whose reply was lost; then all that live are leases.
    wait_for(
        lambda: {a["name"] for a in service.accounts()} == names_in_store(ready, (1,)),
        90,
        "pending leases to be resolved",
    )
    world = checker.World(service)
    log = checker.Log(checker.Store(ready).lines)
    calls = checker.every_call_was_intended(world, log)
    assert len(log.calls) >= calls > ROUNDS
    record_property("log", f"{ROUNDS} kills, {calls} calls served, {len(log.records)} records")
    record_property("verdict", checker.verify(ready, place))
