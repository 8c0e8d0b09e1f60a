"""Many leases at once, all of them, and what is left to do by hand: by the command
line, with a real daemon, keeper and token. One daemon for each story."""

import signal
import sqlite3

import pytest

from conftest import PROJECT, wait_for
from test_cli import FAILED, MISSING, REFUSED, USAGE, Cli


@pytest.fixture
def cli(ready):
    return Cli(ready)


def mint(cli, role="my-app"):
    return cli.json("mint", role)


def test_by_what_they_are(ready, cli, service):
    cli.ok("role", "set", "pay-api", f"project_id={PROJECT}")
    keys = [mint(cli), mint(cli), mint(cli, "pay-api")]
    cli.fails(USAGE, "lease", "revoke")
    cli.fails(USAGE, "lease", "revoke", keys[0]["lease_id"], "--role", "my-app")
    assert cli.json("lease", "revoke", "--role", "my-app", "--dry-run") == {"matched": 2, "revoked": 0, "waiting": 0}
    assert all(service.accepts(k["api_key"]) for k in keys)
    assert cli.json("lease", "revoke", "--prefix", "pay-", "--reason", "leaked")["revoked"] == 1
    assert [service.accepts(k["api_key"]) for k in keys] == [True, True, False]
    assert cli.json("lease", "show", keys[2]["lease_id"])["reason"] == "leaked"
    assert "--revoke" in cli.fails(FAILED, "role", "delete", "my-app")
    cli.ok("role", "delete", "my-app", "--revoke")
    assert service.alive() == 0
    mint(cli, "pay-api")
    assert "--revoke" in cli.fails(FAILED, "config", "delete")
    cli.ok("config", "delete", "--revoke")
    assert service.alive() == 0


def test_reuse_and_guards(ready, cli, service):
    cli.ok("role", "set", "my-app", "reuse=true", "max_live=1")
    first = mint(cli)
    helpers = [cli.start("key", "my-app") for _ in range(8)]
    assert {h.communicate(timeout=60)[0].decode().strip() for h in helpers} == {first["api_key"]}
    assert service.alive() == 1
    # Two applications hold it: the last one ends it.
    a, b = ready.attached("a"), ready.attached("b")
    for c in (a, b):
        assert c.change("Mint", role="my-app")["lease"]["lease_id"] == first["lease_id"]
    a.change("Revoke", lease_id=first["lease_id"])
    assert service.accepts(first["api_key"])
    # So they are known again after a kill.
    ready.kill()
    ready.start()
    with ready.attached("b", token=b.token) as c:
        c.change("Revoke", lease_id=first["lease_id"])
    assert not service.accepts(first["api_key"])
    cli.ok("role", "set", "my-app", "reuse=false")
    mint(cli)
    assert "max_live allows (1)" in cli.fails(REFUSED, "mint", "my-app")


def test_revoke_all(ready, cli, service):
    """Killed in the middle, it goes on; nothing is minted meanwhile."""
    keys = [mint(cli) for _ in range(3)]
    cli.fails(USAGE, "revoke-all")
    cli.fails(MISSING, "revoke-all", "--status")
    assert cli.json("revoke-all", "--reason", "drill", "--dry-run")["leases"] == 3
    assert service.alive() == 3
    service.fault(kind="status", status=503, method="DELETE", times=-1)
    under_way = cli.start("revoke-all", "--reason", "a leak", "--json")
    wait_for(lambda: cli.run("revoke-all", "--status").returncode == 0, 20, "the job")
    assert "revoke-all is under way" in cli.fails(REFUSED, "mint", "my-app")
    under_way.send_signal(signal.SIGTERM)  # SIGINT may be ignored in the background
    under_way.communicate(timeout=120)
    ready.kill()
    ready.start()
    assert "revoke-all is under way" in cli.fails(REFUSED, "mint", "my-app")
    assert cli.json("revoke-all", "--status")["state"] == "revoking"
    service.control("faults", method="DELETE")
    # Asked again, it follows the one that runs.
    job = cli.json("revoke-all", "--reason", "impatience", timeout=120)
    assert (job["state"], job["reason"], job["leases"], job["proven"]) == ("done", "a leak", 3, 3)
    assert service.alive() == 0 and not any(service.accepts(k["api_key"]) for k in keys)
    assert mint(cli)
    with sqlite3.connect(ready.state / "store.db") as store:
        told = [line for (line,) in store.execute("SELECT line FROM record") if '"kind":"break-glass"' in line]
    assert len(told) == 3 and '"dry_run":true' in told[0], told
    assert '"step":"end"' in told[2] and '"proven":3' in told[2], told


def test_a_job_that_cannot_be_read(ready, cli, service):
    """It may have been under way: no key is minted before one is begun anew, and then
    its end ends that."""
    keys = [mint(cli) for _ in range(2)]
    service.fault(kind="status", status=503, method="DELETE", times=-1)
    under_way = cli.start("revoke-all", "--reason", "a leak")
    wait_for(lambda: cli.run("revoke-all", "--status").returncode == 0, 20, "the job")
    under_way.send_signal(signal.SIGTERM)
    under_way.communicate(timeout=120)
    ready.kill()
    with sqlite3.connect(ready.state / "store.db") as store:
        changed = store.execute("UPDATE document SET body = '{' WHERE kind = 'job' AND name = 'revoke-all'")
        assert changed.rowcount == 1
    store.close()
    service.control("faults", method="DELETE")
    ready.start()
    for told in (cli.fails(REFUSED, "mint", "my-app"), cli.fails(FAILED, "revoke-all", "--status")):
        assert "cannot be read; `hsmint revoke-all --reason TEXT` begins it anew" in told
    assert cli.json("revoke-all", "--reason", "once more", timeout=120)["state"] == "done"
    assert not any(service.accepts(k["api_key"]) for k in keys)
    assert mint(cli)


def test_by_hand(ready, cli, service):
    """With everything down; and beside the daemon that holds the state."""
    lease = mint(cli)
    cli.ok("role", "set", "pay-api", f"project_id={PROJECT}")
    other = mint(cli, "pay-api")
    offline = ["lease", "list", "--live", "--offline", "--role", "my-app", "--limit", "1"]
    both = cli.json("lease", "list", "--live", "--offline", "--state", ready.state)
    assert {r["lease_id"] for r in both} == {lease["lease_id"], other["lease_id"]}
    (row,) = cli.json(*offline, "--state", ready.state)
    assert (row["project_id"], row["service_account_id"]) == (PROJECT, lease["service_account_id"])
    ready.kill()
    service.stop()
    assert cli.json(*offline, "--state", ready.state) == [row]
    assert lease["service_account_id"] in cli.ok(*offline, "--state", ready.state)
    assert "store.db" in cli.fails(MISSING, *offline, "--state", "/nowhere")
