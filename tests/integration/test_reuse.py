"""Leases that are given again, and guards: through the command line, the socket and
the module, with a real daemon, keeper and token. One daemon for each story."""

import json
import sqlite3
import threading

import pytest

from conftest import PROJECT, wait_for
from test_cli import REFUSED, Cli
from test_bound import Program
from test_lease import mint
from test_pkcs11 import so  # noqa: F401 (fixture)
from varlink import Error


@pytest.fixture
def cli(ready):
    return Cli(ready)


def records(daemon, kind):
    with sqlite3.connect(daemon.state / "store.db") as store:
        lines = [json.loads(line) for (line,) in store.execute("SELECT line FROM record ORDER BY sequence")]
    return [r for r in lines if r["kind"] == kind]


def made(service):
    return service.control("counters")["accounts_created"]


def test_a_thousand_calls_mint_once(ready, cli, service):
    cli.ok("role", "set", "my-app", "reuse=true")
    service.control("settings", {"latency_ms": 200})
    keys, leases = set(), set()
    lock = threading.Lock()

    def calls():
        with ready.attached("helper") as c:
            for _ in range(30):
                lease, key = mint(c)
                with lock:
                    keys.add(key)
                    leases.add(lease["lease_id"])

    # The first 32 and 8 helpers at once, while nothing is minted yet.
    helpers = [cli.start("key", "my-app") for _ in range(8)]
    threads = [threading.Thread(target=calls) for _ in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    service.control("settings", {"latency_ms": 0})
    for _ in range(4):
        helpers += [cli.start("key", "my-app") for _ in range(8)]
        for h in helpers[-8:]:
            h.wait(30)
    keys |= {h.communicate(timeout=120)[0].decode().strip() for h in helpers}
    assert len(helpers) + 32 * 30 == 1000
    assert len(keys) == len(leases) == made(service) == 1
    assert [r["lease"] for r in records(ready, "mint")] == [*leases]


def test_refreshed_at_half_of_its_life(ready, cli, service):
    cli.ok("role", "set", "my-app", "reuse=true", "ttl=4s")
    with ready.attached() as c:
        first, key = mint(c)
        assert mint(c)[1] == key
        again = wait_for(lambda: (lambda m: m if m[1] != key else None)(mint(c)), 4, "a new key")
        assert made(service) == 2
        # At half of it, not at its end: who has the old one goes on with it.
        assert 1900 <= again[0]["issued_ms"] - first["issued_ms"] < 3500
        assert service.accepts(key)


def test_who_holds_it(ready, so, place, cli, service):  # noqa: F811
    """By the module: C_DestroyObject of one keeps it, that of the last one revokes."""
    cli.ok("role", "set", "my-app", "reuse=true")
    one, two = Program(ready, so, place), Program(ready, so, place)
    try:
        (a,), (b,) = one.ok("mint my-app token 0"), two.ok("mint my-app token 0")
        (key,) = one.ok(f"read {a}")
        assert two.ok(f"read {b}") == [key]
        # What dies with a session is nobody else's.
        bound = one.key("bound")
        assert bound != key and two.key("bound") != bound and two.key("token") == key
        assert made(service) == 3
        one.ok(f"destroy {a}")
        assert service.accepts(key)
        assert two.ok(f"read {b}") == [key]
        two.ok(f"destroy {b}")
        assert not service.accepts(key)
        assert one.key("token") not in (key, bound)
        # One that ends without a word lets go and ends nothing.
        last = one.key("token")
        one.process.kill()
        one.process.wait(10)
        wait_for(lambda: not service.accepts(bound), 2)
        assert service.accepts(last)
    finally:
        one.end()
        two.end()


def test_guards(ready, cli, service):
    cli.ok("role", "set", "my-app", "max_live=3", "max_live_per_identity=2")
    cli.ok("role", "set", "busy", f"project_id={PROJECT}", "max_mints_per_minute=2")
    with ready.attached() as c:
        held = [mint(c)[0] for _ in range(2)]
        with pytest.raises(Error) as e:
            mint(c)
        assert e.value.name == "Limit" and "max_live_per_identity allows (2)" in e.value.text
        assert "hsmint lease list --role my-app" in e.value.text and "reuse=true" in e.value.text
        assert e.value.parameters["retry_after_ms"] == 0
        c.change("Revoke", lease_id=held[0]["lease_id"])
        mint(c)
        for _ in range(2):
            mint(c, role="busy")
        with pytest.raises(Error) as e:
            mint(c, role="busy")
        assert "max_mints_per_minute allows (2): try again in" in e.value.text
        assert 40000 < e.value.parameters["retry_after_ms"] <= 60000
    text = cli.fails(REFUSED, "mint", "busy")
    assert "max_mints_per_minute allows (2)" in text
    # The service was not asked, and the log says which limit it was.
    assert made(service) == 5
    told = [(r["role"], r["code"], r["reason"]) for r in records(ready, "refusal")]
    assert [t[:2] for t in told] == [("my-app", "Limit"), ("busy", "Limit"), ("busy", "Limit")]
    assert "max_live_per_identity allows (2)" in told[0][2]
    assert all("max_mints_per_minute allows (2)" in t[2] for t in told[1:])
