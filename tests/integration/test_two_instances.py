"""Two instances in one organisation of the service, each with a daemon, a token and an
admin key of its own: neither touches what is the other's, each tells it as foreign."""

import threading

import pytest

from conftest import PROJECT, Daemon, Token, wait_for
from test_reconcile import mint, reconcile, store
from varlink import Error, request_id


def set_up(daemon, service, key):
    with daemon.attached() as c:
        c.change("Init")
        c.change(
            "SetConfig", secret=key.encode(), fields={"api_endpoint": service.url, "organization_id": "org-adminsim"}
        )
        c.change("SetRole", name="my-app", fields={"project_id": PROJECT, "ttl": 3600, "max_ttl": 86400})


@pytest.fixture
def two(place, service):
    """Set up as anybody would: a person's key each, which hsmint replaces at once."""
    daemons = []
    for name in ("a", "b"):
        room = place / name
        room.mkdir(mode=0o700)
        d = Daemon(room, Token(room, name), service).start()
        daemons.append(d)
        set_up(d, service, service.control("admin_keys", {"name": f"person-{name}"})["value"])
    yield daemons
    for d in daemons:
        d.end()


def admin_key(daemon):
    with daemon.attached() as c:
        return c.call("GetConfig")["config"]["admin_api_key_id"]


def foreign(report):
    return {(f["finding"], f["account_id"]) for f in report["findings"]}


def others(lease):
    return ("foreign", lease["service_account_id"])


def test_each_tells_the_other_as_foreign_and_ends_nothing(two, service):
    a, b = two
    (of_a, key_a), (of_b, key_b) = mint(a), mint(b)
    alive = service.alive()
    for daemon, own, other, their in ((a, of_a, of_b, b), (b, of_b, of_a, a)):
        for options in ({}, {"revoke": True}, {"adopt": True}):
            report = reconcile(daemon, **options)
            assert report["complete"] and not report["errors"], report
            told = foreign(report)
            assert others(other) in told and ("foreign-admin-key", admin_key(their)) in told
            assert {what for what, _ in told} <= {"foreign", "foreign-admin-key"}
            assert (report["revoking"], report["adopted"], report["closed"]) == (0, 0, 0)
    assert service.alive() == alive
    assert service.accepts(key_a) and service.accepts(key_b)


def test_what_one_lost_only_the_same_one_ends(two, service):
    """An account that the store of one does not know any more has that one's marker: the
    other leaves it alone, even where an administrator said revoke."""
    a, b = two
    lost, key = mint(a)
    a.stop()
    store(a, ("DELETE FROM lease WHERE account_id = ?", lost["service_account_id"]))
    report = reconcile(b, revoke=True)
    assert others(lost) in foreign(report) and service.accepts(key)
    a.start()
    report = reconcile(a)
    assert report["unknown"] == report["revoking"] == 1
    wait_for(lambda: not service.accepts(key), 10, "the lost account to go")


def test_rotations_and_break_glass_stay_at_home(two, service):
    """Each rotates its admin key and ends all its leases while the other mints: no mint
    fails, no key of the other's dies, and neither takes the other's key for its own."""
    a, b = two
    keys, errors, stop = [], [], threading.Event()

    def mints():
        with b.attached() as c:
            while not stop.is_set():
                try:
                    keys.append(c.call("Mint", role="my-app", request_id=request_id()).secret.decode())
                except Error as e:
                    errors.append(str(e))

    of_a, key_a = mint(a)
    before = admin_key(b)
    thread = threading.Thread(target=mints)
    thread.start()
    try:
        for compromised in (False, True):
            with a.attached() as c:
                c.change("RotateConfig", compromised=compromised)
        reconcile(a)
        with a.attached() as c:
            c.change("RevokeAll", reason="a drill")
            wait_for(lambda: c.call("RevokeAllStatus")["job"]["state"] == "done", 60, "revoke-all")
    finally:
        stop.set()
        thread.join()
    assert not errors and len(keys) > 3
    assert admin_key(b) == before and not service.accepts(key_a)
    assert all(service.accepts(k) for k in keys)
    with b.attached() as c:
        c.change("RotateConfig")
    assert not reconcile(b)["errors"] and mint(a) and mint(b)


def test_what_the_other_does_is_no_use_of_our_key(two, service):
    """The service's own audit log names both: what B did is neither unknown use of A's
    admin key nor a change of A's accounts; what B's key does to A's account is."""
    a, b = two
    of_a, _ = mint(a)
    mint(b)
    with b.attached() as c:
        c.change("RotateConfig")
    report = reconcile(a, audit=True)
    assert report["events"] >= 2 and report["unknown_uses"] == 0, report
    assert "changed-by-other" not in {what for what, _ in foreign(report)}


def test_a_key_given_to_both(place, service):
    """A person's key is replaced at once by one that nobody has seen: who gives the same
    one to two instances has two keys of two instances, which outlive the person's."""
    daemons = []
    person = service.control("admin_keys", {"name": "person"})
    try:
        for name in ("a", "b"):
            room = place / name
            room.mkdir(mode=0o700)
            daemons.append(Daemon(room, Token(room, name), service).start())
            set_up(daemons[-1], service, person["value"])
        assert admin_key(daemons[0]) != admin_key(daemons[1])
        path = f"{service.url}/organization/admin_api_keys/{person['id']}"
        assert service.request("DELETE", path, bearer=service.admin_key)[0] == 200
        assert all(mint(d) for d in daemons)
    finally:
        for d in daemons:
            d.end()
