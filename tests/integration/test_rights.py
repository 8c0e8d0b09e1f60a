"""Rights that were never given, or were taken away again: by names that mean something
else elsewhere, by answers that are kept for retries, and by logins that are gone."""

import json

import pytest

from system import ADMIN, ALICE, BOB, system, system_stopped  # noqa: F401 (fixtures)
from varlink import request_id

CALLER = {"roles": ["pay-*"], "capabilities": ["caller"]}


@pytest.fixture
def admin(system):  # noqa: F811
    return system.set_up("pay-api", "web")


def policy(admin, name, *subjects, **more):
    return admin.change("SetPolicy", name=name, fields={"subjects": list(subjects), **more})


def error(agent, method, secret=None, **parameters):
    return agent.try_call(method, secret, **parameters).get("error")


def test_an_empty_name_is_the_default_organisations(system, admin):  # noqa: F811
    """Methods take "" for the default organisation: so does the decision."""
    who = f"user:{ALICE}"
    policy(admin, "all", who, capabilities=["administer", "mint"], roles=["*"])
    policy(admin, "not-here", who, effect="deny", orgs=["default"], roles=["*"], capabilities=["administer", "mint"])
    alice = system.agent("alice", ALICE)
    for method, parameters in (
        ("SetRole", {"name": "web", "fields": {"ttl": 77}}),
        ("SetConfig", {"fields": {"organization_id": "org-other"}}),
        ("DeleteRole", {"name": "web"}),
        ("DeleteConfig", {}),
        ("Init", {}),
        ("Mint", {"role": "web"}),
    ):
        for org in ({}, {"org": ""}, {"org": "default"}):
            assert error(alice, method, request_id=request_id(), **parameters, **org) == "Denied", (method, org)
    for method, parameters in (("GetConfig", {}), ("GetRole", {"name": "web"})):
        for org in ({}, {"org": ""}, {"org": "default"}):
            assert error(alice, method, **parameters, **org) == "Denied", (method, org)
    assert alice.call("ListRoles", org="")["roles"] == []
    assert admin.call("GetRole", name="web")["role"]["ttl"] == 3600


def test_a_retry_is_for_the_role_that_was_permitted(system, admin):  # noqa: F811
    who = f"user:{ALICE}"
    policy(admin, "pay", who, **CALLER)
    policy(admin, "web", who, roles=["web"], capabilities=["caller"])
    alice, again = system.agent("alice", ALICE), request_id()
    lease = alice.call("Mint", role="pay-api", request_id=again)["lease"]
    kept = alice.call("Mint", role="pay-api", request_id=again)
    assert kept["lease"]["lease_id"] == lease["lease_id"] and kept["secret"]
    admin.change("DeletePolicy", name="pay")
    assert error(alice, "Mint", role="pay-api", request_id=again) == "Denied"
    assert error(alice, "ReadKey", lease_id=lease["lease_id"]) == "Denied"
    assert error(alice, "Mint", role="web", request_id=again) == "Invalid"
    assert admin.call("WhoAmI")  # the daemon is well
    policy(admin, "pay", who, **CALLER)
    assert alice.call("GetLease", lease_id=lease["lease_id"])["lease"]["state"] == "active"


def test_all_leases_are_no_operators(system, admin):  # noqa: F811
    """revoke-any is about roles; revoke-all is about none, and is an administrator's."""
    who = f"user:{ALICE}"
    policy(admin, "ops", who, capabilities=["operator"], roles=["pay-*"])
    alice = system.agent("alice", ALICE)
    assert error(alice, "RevokeAll", request_id=request_id(), reason="x") == "Denied"
    assert error(alice, "RevokeMany", request_id=request_id(), role="web") == "Denied"
    assert alice.change("RevokeMany", role="pay-api")["matched"] == 0
    assert error(alice, "DeleteRole", request_id=request_id(), name="pay-api", revoke=True) == "Denied"
    assert admin.change("RevokeAll", reason="drill", dry_run=True)["job"]["leases"] == 0


def test_an_answer_is_about_its_own_organisation(system, admin):  # noqa: F811
    admin.change("Init", org="other")
    policy(admin, "some", f"user:{ALICE}", capabilities=["administer"], orgs=["default", "other"])
    alice, again = system.agent("alice", ALICE), request_id()
    fields = {"organization_id": "org-adminsim"}
    kept = alice.call("SetConfig", fields=fields, request_id=again)
    assert alice.call("SetConfig", fields=fields, org="", request_id=again) == kept
    policy(admin, "not-here", f"user:{ALICE}", effect="deny", orgs=["default"], capabilities=["administer"])
    assert error(alice, "SetConfig", fields=fields, request_id=again) == "Denied"
    assert error(alice, "SetConfig", fields=fields, org="other", request_id=again) == "Invalid"


def test_a_lost_login_unlocks_nothing(system, admin):  # noqa: F811
    """Each wrong PIN may cost a try of the HSM's."""
    policy(admin, "ops", "login:ops", capabilities=["administrator"])
    alice = system.agent("alice", ALICE)
    alice.log_in("ops", admin.ok("login", "create", "ops").strip())
    assert error(alice, "Login", secret="a wrong one", force=True) == "PinWrong"
    admin.change("DeleteLogin", name="ops")
    assert error(alice, "Login", secret="another wrong one", force=True) == "NotLoggedIn"
    assert error(alice, "Login", force=True) == "NotLoggedIn"
    alice.call("Logout")
    assert error(alice, "Login", secret="another wrong one", force=True) == "Denied"


def test_the_policy_that_has_room_says_how_long(system, admin):  # noqa: F811
    """The wide one is used up: the narrow one decides, as `policy test` says."""
    who = f"user:{ALICE}"
    policy(admin, "a-wide", who, limits={"live_leases": 1, "max_ttl": "24h"}, **CALLER)
    policy(admin, "b-narrow", who, limits={"max_ttl": "60s"}, **CALLER)
    alice = system.agent("alice", ALICE)
    lives = [alice.change("Mint", role="pay-api")["lease"] for _ in range(2)]
    assert [(lease["expires_ms"] - lease["issued_ms"]) // 1000 for lease in lives] == [3600, 60]
    (verdict,) = admin.call("TestPolicy", who={"user": str(ALICE)}, role="pay-api", capability="mint")["verdicts"]
    assert verdict["allowed"] and verdict["policy"] == "b-narrow"
    assert error(alice, "Mint", role="pay-api", ttl=61, request_id=request_id()) in ("Limit", "Ttl")


def test_a_failed_login_is_no_way_back_to_the_uid(system, admin):  # noqa: F811
    """As by C_Login(CKU_SO, NULL) in another slot: this one still has the name."""
    policy(admin, "job", "login:job", **CALLER)
    policy(admin, "alice", f"user:{ALICE}", **CALLER)
    alice = system.agent("alice", ALICE)
    alice.log_in("job", admin.ok("login", "create", "job").strip())
    assert error(alice, "Login", so=True) == "Denied"
    assert alice.change("Mint", role="pay-api")["lease"]["owner"] == "login:job"
    alice.call("Login")
    assert alice.change("Mint", role="pay-api")["lease"]["owner"] == f"user:{ALICE}"


def test_no_name_is_too_long_for_a_record(system, admin):  # noqa: F811
    bob = system.agent("bob", BOB)
    for method, parameters in (
        ("Mint", {"role": "r" * 900_000, "request_id": request_id()}),
        ("GetRole", {"name": "x", "org": "\u00e9" * 100_000}),
    ):
        before = len(system.records())
        assert error(bob, method, **parameters) == "Denied"
        (record,) = system.records()[before:]
        assert record["kind"] == "refusal" and record["actor"]["owner"] == f"user:{BOB}"
        assert record["reason"] and len(json.dumps(record)) < 4096
