"""Replies that do not say what they seem to: whoever believes one leaves a key alive that
nobody deletes, or deletes what is somebody else's."""

import time

import pytest

from conftest import PROJECT, wait_for
from varlink import Error

HTML = "<html><body>Access denied</body></html>"
ELSEWHERE = {"error": {"message": "no such project", "code": "project_not_found"}}


def mint(daemon):
    with daemon.attached() as c:
        reply = c.change("Mint", role="my-app")
        return reply["lease"], reply.secret.decode()


def state_of(daemon, lease):
    with daemon.attached() as c:
        return c.call("GetLease", lease_id=lease["lease_id"])["lease"]["state"]


NOT_DELETED = {
    "a page": ({"status": 200, "body": HTML}, "ServiceReply"),
    "a page that is a 404": ({"status": 404, "body": HTML}, "ServiceReply"),
    "an object": ({"status": 200, "body": "{}"}, "ServiceReply"),
    "deleted: false": ({"status": 200, "body": {"deleted": False}}, "ServiceReply"),
    "another one": ({"status": 200, "body": {"id": "svc_acct_other", "deleted": True}}, "ServiceReply"),
    "another organisation": ({"status": 404, "body": ELSEWHERE}, "Project"),
}


@pytest.fixture
def told(ready, service):
    """One daemon for all of them."""

    def each(case):
        reply, name = NOT_DELETED[case]
        lease, key = mint(ready)
        service.fault(kind="status", method="DELETE", path="*/service_accounts/*", **reply)
        with ready.attached() as c, pytest.raises(Error) as e:
            c.change("Revoke", lease_id=lease["lease_id"])
        assert e.value.name == name, (case, e.value)
        wait_for(lambda: not service.accepts(key), 10, f"the key to die after {case}")
        wait_for(lambda: state_of(ready, lease) == "revoked", 10, f"the lease to end after {case}")

    return each


def test_a_delete_that_was_not_done(told, service):
    for case in NOT_DELETED:
        told(case)
    assert service.alive() == 0


def test_an_account_without_a_name(ready, service):
    """A reply that was for somebody else, and does not say so."""
    other = service.control("service_accounts", {"project": PROJECT, "name": "somebody-else"})
    service.fault(kind="set", method="POST", path="*/service_accounts", fields={"id": other["id"], "name": None, "api_key": None})
    for omitted in (False, True):
        if omitted:
            service.fault(kind="omit", method="POST", path="*/service_accounts", fields=["name"])
        with pytest.raises(Error) as e:
            mint(ready)
        assert e.value.name == "ServiceReply", e.value
    wait_for(lambda: [a["name"] for a in service.accounts()] == ["somebody-else"], 15, "what was minted to go")
    time.sleep(0.5)
    assert [a["name"] for a in service.accounts()] == ["somebody-else"]


def test_a_renewal_of_another_key(ready, service):
    lease, _ = mint(ready)
    service.fault(kind="set", method="POST", path="*/api_keys/*", fields={"id": "key_another"}, when="before")
    with ready.attached() as c:
        with pytest.raises(Error) as e:
            c.change("Renew", lease_id=lease["lease_id"], ttl=7200)
        assert e.value.name == "ServiceReply", e.value
        assert c.call("GetLease", lease_id=lease["lease_id"])["lease"]["expires_ms"] == lease["expires_ms"]


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_service_whose_clock_is_another(ready, service, hours):
    service.control("settings", {"clock_offset_s": hours * 3600})
    lease, _ = mint(ready)
    with ready.attached() as c:
        renewed = c.change("Renew", lease_id=lease["lease_id"], ttl=7200)["lease"]
        assert 7190 <= renewed["lease_duration"] <= 7200
        # One that keeps the old end is told all the same.
        service.fault(
            kind="set", method="POST", path="*/api_keys/*", fields={"expires_at": int(time.time()) + hours * 3600 + 7260}
        )
        with pytest.raises(Error) as e:
            c.change("Renew", lease_id=lease["lease_id"], ttl=10800)
        assert e.value.name == "ServiceRefused", e.value


def test_an_admin_key_of_another_organisation(ready, service):
    """It could not delete what lives: it is refused, and the key before stays in use."""
    lease, key = mint(ready)
    other = service.control("admin_keys", {"name": "other"})["value"].encode()
    service.fault(kind="status", status=404, body=ELSEWHERE, method="GET", path=f"*/projects/{PROJECT}")
    with ready.attached() as c:
        with pytest.raises(Error) as e:
            c.change("SetConfig", fields={}, secret=other)
        assert e.value.name == "Exists" and PROJECT in e.value.text, e.value
        c.change("Revoke", lease_id=lease["lease_id"])
        assert not service.accepts(key)
        c.change("SetConfig", fields={}, secret=other)
        c.change("Mint", role="my-app")


def test_pages_that_go_round(ready, service):
    """Neither a search nor reconcile asks for them for ever."""
    first, second = ({"id": f"svc_acct_{n}", "name": n, "created_at": 1} for n in ("a", "b"))
    for _ in range(20):
        for page in (first, second):
            body = {"object": "list", "data": [page], "has_more": True, "last_id": page["id"]}
            service.fault(kind="status", status=200, body=body, method="GET", path="*/service_accounts")
    with ready.attached() as c:
        c.change("Reconcile")
        report = wait_for(lambda: (r := c.call("ReconcileStatus")["report"])["state"] == "done" and r, 30, "reconcile")
    assert service.control("counters")["faults_pending"] > 0
    assert not report["complete"] and "does not end" in report["errors"][0]["text"], report
