"""The sweeper against a backlog: all that is due dies, quickly, in turn, and callers
hardly notice. HSMINT_BACKLOG=10000 for the whole size; the usual run has a small one."""

import http.client
import os
import sqlite3
import statistics
import threading
import time

import pytest

from conftest import PROJECT, patience, wait_for

BACKLOG = int(os.environ.get("HSMINT_BACKLOG", "300"))
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
made = 0


def lease_id():
    global made
    made += 1
    n, text = made, ""
    for _ in range(16):
        text = DIGITS[n % 32] + text
        n //= 32
    return "01m7000000" + text


def backlog(daemon, service, n, project=PROJECT, expires_in=-5, prefix="seed", **more):
    """n active leases with accounts, put into the store of a daemon that is down."""
    service.control("seed", {"project": project, "prefix": prefix, "n": n})
    now = int(time.time() * 1000)
    with sqlite3.connect(daemon.state / "store.db") as db:
        (org,) = db.execute("SELECT id FROM org").fetchone()
        for i in range(n):
            row = {
                "id": lease_id(), "org": org, "role": "my-app", "owner": f"user:{os.geteuid()}", "program": "test",
                "application": "", "session": 0, "state": 1, "bound": 0, "reusable": 0, "issued_ms": now - 3600000,
                "expires_ms": now + expires_in * 1000, "max_expires_ms": now + 86400000, "provider_expires_ms": 0,
                "revoked_ms": 0, "project": project, "account_name": f"{prefix}-{i}",
                "account_id": f"svc_acct_{prefix}_{i}", "key_id": "key_seed", "api_base": service.url, "label": "",
                "next_try_ms": 0, "tries": 0, "last_error": "", "request_id": "", "reason": "", **more,
            }  # fmt: skip
            db.execute(f"INSERT INTO lease({', '.join(row)}) VALUES({', '.join('?' * len(row))})", list(row.values()))
    db.close()


def records(daemon):
    with sqlite3.connect(f"file:{daemon.state}/store.db?mode=ro", uri=True) as db:
        (n,) = db.execute("SELECT count(*) FROM record").fetchone()
    db.close()
    return n


def alive(service, project=PROJECT):
    (p,) = [p for p in service.control("state?alive=1")["projects"] if p["id"] == project]
    return len(p["service_accounts"])


def bare_deletes(service, n):
    """Deletions a second by a loop that does nothing else, on one connection."""
    service.control("seed", {"prefix": "bare", "n": n})
    host = service.url.split("/")[2]
    c = http.client.HTTPSConnection(host, context=service.context)
    began = time.monotonic()
    for i in range(n):
        c.request(
            "DELETE",
            f"/v1/organization/projects/{PROJECT}/service_accounts/svc_acct_bare_{i}",
            headers={"Authorization": "Bearer " + service.admin_key},
        )
        r = c.getresponse()
        assert r.status == 200, r.read()
        r.read()
    return n / (time.monotonic() - began)


def p99(times):
    return sorted(times)[int(len(times) * 0.99)]


def mint_times(daemon, seconds=None, n=None):
    """How long each mint of one caller takes."""
    times, end = [], time.monotonic() + (seconds or 3600)
    with daemon.attached() as c:
        while time.monotonic() < end and (n is None or len(times) < n):
            began = time.monotonic()
            c.change("Mint", role="my-app")
            times.append(time.monotonic() - began)
    return times


def test_a_backlog_dies_at_once(ready, service, capsys):
    ready.stop()
    backlog(ready, service, BACKLOG)
    rate = bare_deletes(service, min(BACKLOG, 2000))
    began = time.monotonic()
    ready.start()
    wait_for(lambda: service.alive() == 0, 60 + BACKLOG / 10, "all to die")
    took = time.monotonic() - began
    with capsys.disabled():
        print(
            f"# {BACKLOG} due at once: dead in {took:.1f} s, {BACKLOG / took:.0f}/s; "
            f"bare DELETE loop {rate:.0f}/s; ratio {BACKLOG / took / rate:.2f}"
        )
    with ready.attached() as c:
        wait_for(lambda: c.call("ListLeases", live=True)["leases"] == [], 10, "all revoked in the store")


class Minter(threading.Thread):
    """A caller that mints until it is told to stop."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon_, self.times, self.over = daemon, [], False
        self.start()

    def run(self):
        with self.daemon_.attached() as c:
            while not self.over:
                began = time.monotonic()
                c.change("Mint", role="my-app")
                self.times.append((began, time.monotonic() - began))


@pytest.mark.skipif(BACKLOG < 5000, reason="a small backlog is over before a percentile means anything: HSMINT_BACKLOG=10000")
def test_callers_hardly_notice(ready, service, capsys):
    """Their 99th percentile while a backlog drains is at most twice that without one."""
    ready.stop()
    backlog(ready, service, BACKLOG, expires_in=30)
    due = time.monotonic() + 30
    ready.start()
    time.sleep(1)
    minters = [Minter(ready) for _ in range(4)]
    wait_for(lambda: service.control("counters")["accounts_deleted"] >= 1, 60)
    begun = time.monotonic()
    wait_for(lambda: service.control("counters")["accounts_deleted"] >= BACKLOG, 60 + BACKLOG / 10, "all to die")
    ended = time.monotonic()
    for m in minters:
        m.over = True
    for m in minters:
        m.join()
    times = [t for m in minters for t in m.times]
    before = [took for at, took in times if at + took < due]
    during = [took for at, took in times if begun <= at < ended]
    with capsys.disabled():
        print(
            f"# mints: {len(before)} undisturbed, p50 {statistics.median(before) * 1e3:.1f} ms, p99 {p99(before) * 1e3:.1f} ms; "
            f"{len(during)} while {BACKLOG} drained in {ended - begun:.1f} s, "
            f"p50 {statistics.median(during) * 1e3:.1f} ms, p99 {p99(during) * 1e3:.1f} ms"
        )
    assert p99(during) <= 2 * p99(before)


def deletes(service, project):
    """(status, at) of each DELETE that the double served for this project."""
    path = f"/projects/{project}/"
    return [
        (r["status"], r["at_ms"] / 1000)
        for r in service.control("requests")["requests"]
        if r["method"] == "DELETE" and path in r["path"]
    ]


@pytest.mark.parametrize(
    "fault",
    [{"kind": "status", "status": 500}, {"kind": "hang", "ms": 3000}, {"kind": "status", "status": 403, "body": "no"}],
    ids=["fails", "hangs", "refuses"],
)
def test_one_project_holds_up_no_other(ready, service, fault):
    """A hundred leases of a project that fails or is slow, due before another's."""
    service.control("projects", {"id": "proj_ill"})
    service.control("projects", {"id": "proj_well"})
    ready.stop()
    backlog(ready, service, 100, "proj_ill", -100, "ill")
    backlog(ready, service, 100, "proj_well", -5, "well")
    service.fault(method="DELETE", path="*/proj_ill/*", times=-1, **fault)
    began = time.monotonic()
    ready.start()
    wait_for(lambda: alive(service, "proj_well") == 0, 20, "the other project's to die")
    assert time.monotonic() - began < patience(15)
    assert alive(service, "proj_ill") > 50
    service.control("faults", method="DELETE")
    wait_for(lambda: alive(service, "proj_ill") == 0, 30, "those to die, too")


def test_the_service_says_how_fast(ready, service):
    """Retry-After is obeyed, and so is what the headers say is left: at most a few are
    refused, and all die."""
    ready.stop()
    backlog(ready, service, 60)
    service.control("settings", {"rate_limit": 20, "rate_window_ms": 1000})
    ready.start()
    wait_for(lambda: alive(service) == 0, 30, "all to die")
    refused = [s for s, _ in deletes(service, PROJECT) if s == 429]
    assert 0 < len(refused) <= 40

    ready.stop()
    backlog(ready, service, 60, prefix="told")
    service.control("reset", {"counters": True})
    service.control("settings", {"rate_limit": 20, "rate_window_ms": 1000, "rate_headers": True})
    ready.start()
    wait_for(lambda: alive(service) == 0, 30, "all to die")
    told = [s for s, _ in deletes(service, PROJECT) if s == 429]
    assert len(told) < len(refused)


def test_lost_replies_are_asked_for_again(ready, service):
    """Eight deletions in a row whose replies are lost: all are known to be done within
    seconds, and the alarm comes once at most."""
    ready.stop()
    backlog(ready, service, 8)
    service.fault(kind="drop", method="DELETE", times=8)
    ready.start()
    with ready.attached() as c:
        wait_for(lambda: c.call("ListLeases", live=True)["leases"] == [], 15, "all revoked in the store")
    assert alive(service) == 0
    assert ready.log().count("warning: alarm revocation-waits") <= 1


def test_an_outage_is_probed_not_recorded(ready, service):
    """Fifty due leases, nobody there for five seconds: a few tries and not fifty, few
    records, and all are dead within two seconds of its return."""
    ready.stop()
    backlog(ready, service, 50)
    service.fault(kind="drop", when="before", path="*", times=-1)
    before = records(ready)
    ready.start()
    time.sleep(5)
    tries = len(deletes(service, PROJECT))
    written = records(ready) - before
    assert 1 <= tries <= 12 and written <= 60, (tries, written)
    assert alive(service) == 50
    service.control("faults", method="DELETE")
    back = time.monotonic()
    wait_for(lambda: alive(service) == 0, 10, "all to die")
    assert time.monotonic() - back < patience(4)  # one second to look, and the rest is work
