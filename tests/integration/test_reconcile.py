"""What the service has against what the store knows: what is ours and unknown goes,
what is somebody else's stays, a mint under way is neither, and who is no longer sure of
its state only reports."""

import json
import sqlite3
import threading
import time

import pytest

from conftest import PROJECT, wait_for
from test_rotate_when import give
from varlink import Error, request_id

MINUTE = 60_000


def mint(daemon, **more):
    with daemon.attached() as c:
        reply = c.call("Mint", role="my-app", request_id=request_id(), **more)
        return reply["lease"], reply.secret.decode()


def reconcile(daemon, seconds=60, **options):
    """A whole run; its report."""
    with daemon.attached() as c:
        c.change("Reconcile", **options)
    return finished(daemon, seconds)


def finished(daemon, seconds=60):
    def done():
        with daemon.attached() as c:
            report = c.call("ReconcileStatus")["report"]
        return report if report["state"] == "done" else None

    return wait_for(done, seconds, "reconcile to end")


def found(report):
    return sorted((f["finding"], f["account_id"]) for f in report["findings"] if "foreign" not in f["finding"])


def lease(daemon, lease_id):
    with daemon.attached() as c:
        return c.call("GetLease", lease_id=lease_id)["lease"]


def ended(daemon, lease_id):
    l = lease(daemon, lease_id)
    return l if l["state"] == "revoked" else None


def store(daemon, *statements):
    """Changes the store of a daemon that does not run, as a fault would."""
    with sqlite3.connect(daemon.state / "store.db") as db:
        for sql, *values in statements:
            assert db.execute(sql, values).rowcount == 1, sql
    db.close()


def names_alive(service):
    return {a["name"] for a in service.accounts()}


def alarms(daemon):
    with daemon.attached() as c:
        return {a["id"] for a in c.call("Status")["status"]["alarms"]}


def test_each_finding_and_what_becomes_of_it(ready, service):
    """All in one state: unknown, made twice, returned, vanished, foreign, known."""
    daemon = ready
    leases = {n: mint(daemon) for n in ("known", "lost", "twice", "returned", "vanished")}
    ids = {n: l["service_account_id"] for n, (l, _) in leases.items()}
    foreign = service.control("service_accounts", {"project": PROJECT, "name": "somebody-else"})
    # It looks like one of ours, and its marker is not.
    forged = service.control("service_accounts", {"project": PROJECT, "name": "vault-my-app-x-" + "a" * 18})
    copy = service.control("service_accounts", {"project": PROJECT, "name": leases["twice"][0]["service_account"]})
    daemon.stop()
    store(
        daemon,
        ("DELETE FROM lease WHERE account_id = ?", ids["lost"]),
        (
            "UPDATE lease SET state = 3, account_id = '', revoked_ms = issued_ms - ? WHERE account_id = ?",
            10 * MINUTE,
            ids["returned"],
        ),
        ("UPDATE lease SET issued_ms = issued_ms - ? WHERE account_id = ?", 10 * MINUTE, ids["vanished"]),
    )
    service.control(f"service_accounts/{ids['vanished']}", method="DELETE")
    daemon.start()
    expected = sorted(
        [
            ("unknown-ours", ids["lost"]),
            ("wrong-id", copy["id"]),
            ("returned", ids["returned"]),
            ("vanished", ids["vanished"]),
        ]
    )
    before = service.alive()
    dry = reconcile(daemon, dry_run=True)
    assert found(dry) == expected and dry["report_only"] and dry["complete"]
    assert dry["revoking"] == dry["closed"] == 0 and service.alive() == before
    assert lease(daemon, leases["vanished"][0]["lease_id"])["state"] == "active"

    report = reconcile(daemon)
    assert found(report) == expected and report["complete"] and not report["errors"]
    assert (report["revoking"], report["closed"], report["adopted"]) == (3, 1, 0)
    assert report["foreign"] == 2
    wait_for(lambda: service.alive() == before - 3, 10, "what is unknown to go")
    left = {a["id"] for a in service.accounts()}
    assert left == {ids["known"], ids["twice"], foreign["id"], forged["id"]}
    assert service.accepts(leases["known"][1]) and service.accepts(leases["twice"][1])
    assert not service.accepts(leases["lost"][1]) and not service.accepts(leases["returned"][1])
    gone = wait_for(lambda: ended(daemon, leases["vanished"][0]["lease_id"]), 10, "what vanished to end")
    assert gone["reason"] == "vanished"
    assert {"unknown-accounts", "accounts-vanished"} <= alarms(daemon)

    # Nothing is left to find, and the alarms are over.
    again = reconcile(daemon)
    assert found(again) == [] and again["revoking"] == again["closed"] == 0
    assert not {"unknown-accounts", "accounts-vanished"} & alarms(daemon)


OLD = "UPDATE lease SET issued_ms = issued_ms - ? WHERE account_id = ?"


def test_a_404_is_believed_with_care(ready, service):
    """Of what is not the service, none; of the service, when it says so twice; and then its
    account is deleted all the same, so that a service that is wrong leaves no key."""
    daemon = ready
    (first, key), (second, second_key) = mint(daemon), mint(daemon)
    daemon.stop()
    store(daemon, *[(OLD, 10 * MINUTE, l["service_account_id"]) for l in (first, second)])
    daemon.start()
    # The list leaves them out, as that of another region would, a while behind.
    listing = {"method": "GET", "path": f"/v1/organization/projects/{PROJECT}/service_accounts"}
    empty = json.dumps({"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False})
    one = f"*/service_accounts/{first['service_account_id']}"

    def run_with(*faults):
        service.fault(kind="status", status=200, body=empty, times=-1, **listing)
        for fault in faults:
            service.fault(method="GET", path=one, **fault)
        report = reconcile(daemon)
        service.control("faults", method="DELETE")
        return report

    # Both are there when they are asked for.
    report = run_with()
    assert report["vanished"] == report["closed"] == 0 and report["complete"]
    # A proxy's page.
    report = run_with({"kind": "status", "status": 404, "body": "<html>not here</html>", "times": -1})
    assert report["vanished"] == 0 and not report["complete"]
    assert "by what is not the service" in report["errors"][0]["text"]
    # The service itself, but only once.
    error = json.dumps({"error": {"message": "No such service account", "type": "invalid_request_error", "code": "not_found"}})
    report = run_with({"kind": "status", "status": 404, "body": error, "times": 1})
    assert report["vanished"] == report["closed"] == 0 and report["complete"], report
    assert service.accepts(key) and service.accepts(second_key)
    # Twice: it ends, and its account with it.
    report = run_with({"kind": "status", "status": 404, "body": error, "times": 2})
    assert found(report) == [("vanished", first["service_account_id"])] and report["closed"] == 1
    assert wait_for(lambda: ended(daemon, first["lease_id"]), 10, "the lease to end")["reason"] == "vanished"
    assert not service.accepts(key) and service.accepts(second_key)


def test_what_is_in_another_project_ends_there(ready, service):
    """An account with the name of a lease of ours, in another project than the lease's: the
    lease lives on, the account goes, by the project that it is in."""
    daemon = ready
    service.control("projects", {"id": "proj_other", "name": "other"})
    kept, key = mint(daemon)
    over, _ = mint(daemon)
    with daemon.attached() as c:
        c.change("Revoke", lease_id=over["lease_id"])
    wait_for(lambda: ended(daemon, over["lease_id"]), 10, "the revocation")
    for l in (kept, over):
        service.control("service_accounts", {"project": "proj_other", "name": l["service_account"]})
    report = reconcile(daemon)
    assert report["wrong_id"] == report["revoking"] == 2 and report["complete"], report
    wait_for(lambda: not service.accounts("proj_other"), 10, "both to go")
    assert service.accepts(key) and found(reconcile(daemon)) == []


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_run_goes_on_where_it_was(ready, service, how):
    """After an orderly end it lists each project once, after a kill few twice."""
    daemon = ready
    for n in range(24):
        service.control("projects", {"id": f"proj_n{n}", "name": f"n{n}"})
        service.control("service_accounts", {"project": f"proj_n{n}", "name": "foreign"})
    _, page = service.request("GET", service.url + "/organization/projects?limit=100", bearer=service.admin_key)
    projects = len(page["data"])
    assert projects >= 24 and not page["has_more"]
    service.control("settings", {"latency_ms": 250})
    listed = lambda: sum(
        row["count"]
        for row in service.control("counters")["by"]
        if row["method"] == "GET" and row["pattern"].endswith("/service_accounts")
    )
    with daemon.attached() as c:
        c.change("Reconcile")
    wait_for(lambda: listed() >= 15, 30, "some projects")
    daemon.stop() if how == "stop" else daemon.kill()
    service.control("settings", {"latency_ms": 0})
    daemon.start()
    report = finished(daemon)
    assert report["resumed"] and report["complete"]
    assert report["projects"] == projects and report["foreign"] == len(
        [f for f in report["findings"] if f["finding"] == "foreign"]
    )
    twice = listed() - projects
    assert twice <= (1 if how == "stop" else 12), twice
    with sqlite3.connect(daemon.state / "store.db") as db:
        names = {name for (name,) in db.execute("SELECT name FROM document WHERE kind = 'reconcile'")}
    assert names == {"last"}


def test_a_run_that_goes_on_counts_nothing_twice(ready, service):
    """The admin keys of one organisation are looked at before the projects of the other are; a
    project could not be seen before the end."""
    daemon = ready
    with daemon.attached() as c:
        c.change("Init", org="second")
    give(daemon, service, org="second", keep_first=True)
    for n in range(12):
        service.control("projects", {"id": f"proj_n{n}", "name": f"n{n}"})
    _, page = service.request("GET", service.url + "/organization/projects?limit=100", bearer=service.admin_key)
    projects = len(page["data"])
    whole = reconcile(daemon)
    assert whole["projects"] == 2 * projects and whole["complete"]
    service.fault(kind="status", status=403, method="GET", path="*/service_accounts", times=1)
    service.control("settings", {"latency_ms": 250})
    with daemon.attached() as c:
        c.change("Reconcile")

    def seen():
        with daemon.attached() as c:
            return c.call("ReconcileStatus")["report"]["projects"]

    wait_for(lambda: seen() >= projects + 3, 60, "some projects of the second")
    daemon.stop()
    service.control("settings", {"latency_ms": 0})
    daemon.start()
    report = finished(daemon)
    assert report["resumed"] and len(report["errors"]) == 1
    for count in ("projects", "admin_keys", "admin_foreign"):
        assert report.get(count) == whole.get(count), count
    assert len(report["findings"]) == len(whole["findings"])


def test_a_mint_under_way_is_not_taken_for_unknown(ready, service):
    """Mints all the while, replies late, new accounts read as absent for a moment: none of
    them is revoked by a run, and each key works."""
    service.control("settings", {"latency_ms": 5, "latency_jitter_ms": 40, "visibility_ms": 150})
    keys, stop, errors = [], threading.Event(), []

    def mints():
        with ready.attached() as c:
            while not stop.is_set():
                try:
                    keys.append(c.call("Mint", role="my-app", request_id=request_id()).secret.decode())
                except Error as e:
                    errors.append(str(e))

    threads = [threading.Thread(target=mints) for _ in range(3)]
    for t in threads:
        t.start()
    reports = [reconcile(ready) for _ in range(4)]
    stop.set()
    for t in threads:
        t.join()
    assert not errors and len(keys) > 10
    assert all(found(r) == [] and r["complete"] for r in reports)
    assert all(service.accepts(k) for k in keys)


def test_three_ledgers_agree_about_all_that_we_do(ready, service):
    """Mints, renewals, revocations, lost replies, a rotation, mints meanwhile: each event of
    the service's log is found in ours. What another key does to our account is told, too."""
    leases = [mint(ready, ttl=600)[0] for _ in range(3)]
    with ready.attached() as c:
        c.change("Renew", lease_id=leases[0]["lease_id"], ttl=1200)
        c.change("Revoke", lease_id=leases[1]["lease_id"])
        service.fault(kind="drop", method="POST", path="*/service_accounts")
        with pytest.raises(Error):
            c.call("Mint", role="my-app", request_id=request_id())
        c.change("RotateConfig")
    wait_for(lambda: service.alive() == 2, 30, "the lost account to be found and deleted")
    stop = threading.Event()

    def mints():
        while not stop.is_set():
            mint(ready)

    thread = threading.Thread(target=mints)
    thread.start()
    reports = [reconcile(ready, audit=True) for _ in range(3)]
    stop.set()
    thread.join()
    for report in reports:
        assert report["complete"] and report["unknown_uses"] == 0, report
        assert report["events"] >= 7
    other = service.control("admin_keys", {"name": "somebody"})["value"]
    account = leases[2]["service_account_id"]
    path = f"{service.url}/organization/projects/{PROJECT}/service_accounts/{account}"
    assert service.request("DELETE", path, bearer=other)[0] == 200
    report = reconcile(ready, audit=True)
    assert report["unknown_uses"] == 0
    (told,) = [f for f in report["findings"] if f["finding"] == "changed-by-other"]
    assert told["account"] == "service_account.deleted" and told["account_id"] == account


def test_nothing_is_adopted_while_all_is_ended(ready, service):
    """What is adopted behind revoke-all would live on after its proof that all are dead."""
    daemon = ready
    mint(daemon)
    lost, key = mint(daemon)
    daemon.stop()
    store(daemon, ("DELETE FROM lease WHERE account_id = ?", lost["service_account_id"]))
    daemon.start()
    service.fault(kind="status", status=503, method="DELETE", times=-1)
    with daemon.attached() as c:
        c.change("RevokeAll", reason="a leak")
        report = reconcile(daemon, adopt=True)
        assert not report["complete"] and "revoke-all" in report["errors"][0]["text"], report
        assert lost["service_account_id"] not in {x["service_account_id"] for x in c.call("ListLeases", live=True)["leases"]}
        service.control("faults", method="DELETE")
        wait_for(lambda: c.call("RevokeAllStatus")["job"]["state"] == "done", 60, "revoke-all")
        reconcile(daemon)
    wait_for(lambda: service.alive() == 0, 10, "what was lost to be revoked")
    assert not service.accepts(key)
