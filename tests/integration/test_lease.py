"""End to end: a lease from its mint to its end, with the HSM and the double."""

import os
import signal
import threading
import time

import pytest

from conftest import PROJECT, patience, wait_for
from varlink import Error, request_id


def mint(c, role="my-app", **parameters):
    reply = c.change("Mint", role=role, **parameters)
    return reply["lease"], (reply.secret or b"").decode()


def test_from_mint_to_revoke(ready, service):
    with ready.attached() as c:
        lease, key = mint(c)
        assert lease["state"] == "active" and lease["role"] == "my-app"
        assert lease["project_id"] == PROJECT and lease["api_base"] == service.url
        assert 3590 <= lease["lease_duration"] <= 3600 and lease["lease_renewable"]
        assert lease["owner"] == f"user:{os.geteuid()}" and lease["program"] == "pytest"
        assert not lease["bound"]
        assert service.accepts(key)
        assert [a["id"] for a in service.accounts()] == [lease["service_account_id"]]

        assert c.call("GetLease", lease_id=lease["lease_id"])["lease"]["lease_id"] == lease["lease_id"]
        listed = c.call("ListLeases", live=True)
        assert [x["lease_id"] for x in listed["leases"]] == [lease["lease_id"]] and not listed["more"]

        longer = c.change("Renew", lease_id=lease["lease_id"], ttl=7200)["lease"]
        assert longer["expires_ms"] > lease["expires_ms"]

        c.change("Revoke", lease_id=lease["lease_id"])
        assert not service.accepts(key) and service.alive() == 0
        assert c.call("GetLease", lease_id=lease["lease_id"])["lease"]["state"] == "revoked"
        assert c.call("ListLeases", live=True)["leases"] == []
        # Revoking again changes nothing.
        c.change("Revoke", lease_id=lease["lease_id"])


def test_no_secret_is_in_a_message(ready, service):
    """The key comes beside the message, never in it."""
    with ready.attached() as c:
        c.send({"method": "org.hsmint.Mint", "parameters": {"role": "my-app", "request_id": request_id()}})
        message, fds = c.receive()
        with os.fdopen(fds[0]) as f:
            key = f.read()
        assert service.accepts(key)
        assert key not in str(message) and service.admin_key not in str(message)
        config = str(c.call("GetConfig"))
        assert service.admin_key not in config


def test_retry_mints_once(ready, service):
    """The key went to a caller that never got it: one account lives, not two."""
    with ready.attached() as c:
        again = request_id()
        _, lost = mint(c, request_id=again)
        second, key = mint(c, request_id=again)
        assert second["state"] == "active" and service.accepts(key)
        wait_for(lambda: service.alive() == 1, 5, "the first account to go")
        assert key == lost or not service.accepts(lost)


def test_retry_of_a_kept_key_gives_it_again(ready, service):
    with ready.attached() as c:
        c.change("SetRole", name="kept", fields={"project_id": PROJECT, "keep_value": True})
        again = request_id()
        first, key = mint(c, role="kept", request_id=again)
        second, same = mint(c, role="kept", request_id=again)
        assert (second["lease_id"], same) == (first["lease_id"], key) and service.alive() == 1


def test_reuse_gives_the_live_one(ready, service):
    with ready.attached() as c:
        first, key = mint(c, reuse=True)
        second, same = mint(c, reuse=True)
        assert first["lease_id"] == second["lease_id"] and key == same
        c.change("Revoke", lease_id=first["lease_id"])
        third, other = mint(c, reuse=True)
        assert third["lease_id"] != first["lease_id"] and other != key


def test_read_key(ready):
    with ready.attached() as c:
        c.change("SetRole", name="kept", fields={"project_id": PROJECT, "keep_value": True})
        lease, key = mint(c, role="kept")
        assert lease["kept"]
        assert c.call("ReadKey", lease_id=lease["lease_id"]).secret.decode() == key
        lease, _ = mint(c)
        e = pytest.raises(Error, c.call, "ReadKey", lease_id=lease["lease_id"]).value
        assert e.name == "Sensitive"


def test_label(ready):
    with ready.attached() as c:
        lease, _ = mint(c, label="first", id="0102")
        assert (lease["label"], lease["id"]) == ("first", "0102")
        c.call("LabelLease", lease_id=lease["lease_id"], label="second", id="0304")
        lease = c.call("GetLease", lease_id=lease["lease_id"])["lease"]
        assert (lease["label"], lease["id"]) == ("second", "0304")


def test_pages(ready):
    with ready.attached() as c:
        ids = [mint(c)[0]["lease_id"] for _ in range(5)]
        first = c.call("ListLeases", limit=3)
        assert [x["lease_id"] for x in first["leases"]] == ids[:1:-1] and first["more"]
        rest = c.call("ListLeases", limit=3, before=first["leases"][-1]["lease_id"])
        assert [x["lease_id"] for x in rest["leases"]] == ids[1::-1] and not rest["more"]


def test_expiry(ready, service):
    with ready.attached() as c:
        lease, key = mint(c, ttl=2)
        assert service.accepts(key)
        wait_for(lambda: not service.accepts(key), 5, "the key to die")
        wait_for(lambda: c.call("GetLease", lease_id=lease["lease_id"])["lease"]["state"] == "revoked", 5)
        assert time.time() * 1000 - lease["expires_ms"] < 3000
        assert service.alive() == 0


def test_session_end(ready, service):
    with ready.attached() as c:
        one, first = mint(c, bound=True, session=1)
        two, second = mint(c, bound=True, session=2)
        assert one["bound"] and one["session"] == 1
        c.call("EndSession", session=1)
        wait_for(lambda: not service.accepts(first), 2)
        assert service.accepts(second) and service.alive() == 1
        # Another application's session of that number is another session.
        with ready.attached() as d:
            d.call("EndSession", session=2)
        time.sleep(0.2)
        assert service.accepts(second)


def test_connection_end(ready, service):
    """Without a word: bound leases go, others stay."""
    c = ready.attached()
    _, bound = mint(c, bound=True)
    _, free = mint(c)
    second = ready.attached(token=c.token)
    c.close()
    time.sleep(0.2)
    assert service.accepts(bound)
    second.close()
    wait_for(lambda: not service.accepts(bound), 1, "the bound key to die")
    assert service.accepts(free)


@pytest.mark.parametrize("forked", [False, True], ids=["alone", "forked-child-holds-socket"])
def test_killed_client(ready, service, forked):
    r, w = os.pipe()
    held, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold)
            c = ready.attached("victim")
            _, key = mint(c, bound=True, session=7)
            if forked and os.fork() == 0:
                os.read(held, 1)  # until the test is over
                os._exit(0)
            os.write(w, key.encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(w)
    os.close(held)
    key = os.read(r, 1000).decode()
    assert service.accepts(key)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: service.alive() == 0, 1, "the account to be gone")
    assert time.monotonic() - killed < patience(1)
    assert not service.accepts(key)
    os.waitpid(pid, 0)
    os.close(hold)
    os.close(r)


def test_client_killed_while_minting(ready, service):
    """The lease that nobody waits for any more does not stay."""
    service.control("settings", {"latency_ms": 300})
    asked = service.control("counters")["requests"]
    pid = os.fork()
    if pid == 0:
        c = ready.attached("victim")
        c.send({"method": "org.hsmint.Mint", "parameters": {"role": "my-app", "bound": True, "request_id": request_id()}})
        signal.pause()
    wait_for(lambda: service.control("counters")["requests"] > asked, 10, "the request")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_for(lambda: service.control("counters")["accounts_created"] == 1, 5)
    wait_for(lambda: service.alive() == 0, 3, "the account to be gone")


def test_session_ends_while_minting(ready, service):
    service.control("settings", {"latency_ms": 1000})
    asked = service.control("counters")["requests"]
    with ready.attached() as c, ready.attached(token=c.token) as other:
        c.send({"method": "org.hsmint.Mint", "parameters": {"role": "my-app", "bound": True, "session": 3, "request_id": request_id()}})
        wait_for(lambda: service.control("counters")["requests"] > asked, 10, "the request")
        other.call("EndSession", session=3)
        message, fds = c.receive()
        assert message["error"] == "org.hsmint.Denied" and fds == []
        wait_for(lambda: service.alive() == 0, 3, "the account to be gone")


def test_stop_with_living_leases(ready, service):
    with ready.attached() as c:
        lease, key = mint(c)
        e = pytest.raises(Error, c.call, "Stop").value
        assert e.name == "Exists" and "force" in e.text
        c.call("Stop", force=True)
    assert ready.process.wait(15) == 0
    ready.start()
    with ready.attached() as c:
        assert c.call("GetLease", lease_id=lease["lease_id"])["lease"]["state"] == "active"
        assert service.accepts(key)


def test_a_token_without_leases_is_not_taken_back(ready):
    c = ready.attached()
    mint(c)
    ready.kill()
    ready.start()
    with ready.connect() as again, pytest.raises(Error) as e:
        again.attach(token=c.token)
    assert e.value.name == "NotFound"


def test_keeper_is_killed(ready, service):
    with ready.attached() as c:
        mint(c)
        os.kill(ready.keeper(), signal.SIGKILL)

        def works():
            try:
                return mint(c)
            except Error as e:
                assert e.name in ("Keeper", "Locked", "HsmAbsent"), e
                time.sleep(0.1)

        _, key = wait_for(works, 10, "a mint after the keeper's death")
        assert service.accepts(key)


def test_many_at_once(ready, service):
    leases = []

    def one():
        with ready.attached() as c:
            for _ in range(10):
                leases.append(mint(c))

    threads = [threading.Thread(target=one) for _ in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({lease["lease_id"] for lease, _ in leases}) == 200 == service.alive()
    assert service.accepts(leases[-1][1])


def test_long_labels_are_refused(ready):
    """A page of leases has to fit into one message."""
    with ready.attached() as c:
        lease_id = c.change("Mint", role="my-app", label="x" * 255)["lease"]["lease_id"]
        for refused in (
            lambda: c.change("Mint", role="my-app", label="x" * 256),
            lambda: c.call("LabelLease", lease_id=lease_id, label="x" * 900000),
        ):
            with pytest.raises(Error) as e:
                refused()
            assert e.value.name == "Invalid" and "label" in e.value.text
        assert [lease["label"] for lease in c.call("ListLeases")["leases"]] == ["x" * 255]
        assert ready.service.alive() == 1
