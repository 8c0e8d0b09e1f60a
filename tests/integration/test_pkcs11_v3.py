"""The module with the real daemon, keeper, HSM and double: what 3.x adds, every
row of what a caller does, and restarts in the middle of calls."""

import base64
import json
import re
import signal
import subprocess
import time

import pytest

from conftest import PIN, PROJECT, not_sanitized, patience, wait_for
from test_pkcs11 import Client, Tool, key_in, leases, need, so, tool  # noqa: F401 (fixtures)


@pytest.fixture
def client(ready, so, place):  # noqa: F811
    c = Client(ready, so, place)
    yield c
    c.end()


@pytest.fixture
def user(client):
    client.ok("open")
    client.ok(f"login {PIN}")
    return client


# ---- a daemon that is killed and started again in the middle ----


def mint_cut(user, ready, service, how, pause):
    """Mint; kill the daemon `pause` seconds after the service was asked."""
    asked = service.control("counters")["requests"]
    service.control("settings", {"latency_ms": 400})
    user.process.stdin.write(f"mint my-app {how} 0\n")
    wait_for(lambda: service.control("counters")["requests"] > asked, 10, "the request")
    time.sleep(pause)
    ready.kill()
    service.control("settings", {"latency_ms": 0})
    ready.start()
    return user.process.stdout.readline().strip()


@pytest.mark.parametrize("how", ["token", "bound"])
@pytest.mark.parametrize("pause", [0, 0.2, 0.6])
def test_a_mint_cut_by_a_restart_mints_once(user, ready, service, how, pause):
    (before,) = user.ok("mint my-app token 0")
    (old,) = user.ok(f"read {before}")
    answer = mint_cut(user, ready, service, how, pause)
    assert answer.startswith("ok "), (answer, user.ok("why"))
    (key,) = user.ok(f"read {answer.split()[1]}")
    assert service.accepts(key) and key != old
    wait_for(lambda: service.alive() == 2, 15, "one account a lease")
    # Nobody saw the first answer: its account is gone, its name is looked for
    # until the window (spec/LEASES.md) is over.
    wait_for(lambda: {l["state"] for l in leases(ready)} <= {"active", "revoking"}, 5, "nothing to be pending")
    listed = leases(ready)
    assert [l["state"] for l in listed].count("active") == 2
    # By whoever was first: the request that came again, or the sweeper.
    assert [l["reason"] for l in listed if l["state"] == "revoking"] in ([], ["answer lost"], ["revoked"])
    assert not any(l["last_error"] for l in listed)
    # Handles, values and the login have survived.
    assert user.ok(f"read {before}") == [old]
    user.ok(f"destroy {before}")
    user.ok("logout")
    wait_for(lambda: service.alive() == (1 if how == "token" else 0), 5, "what was bound to go")


def test_a_revocation_cut_by_a_restart_is_done(user, ready, service):
    (handle,) = user.ok("mint my-app token 0")
    service.control("settings", {"latency_ms": 400})
    asked = service.control("counters")["requests"]
    user.process.stdin.write(f"destroy {handle}\n")
    wait_for(lambda: service.control("counters")["requests"] > asked, 10, "the request")
    ready.kill()
    service.control("settings", {"latency_ms": 0})
    ready.start()
    user.process.stdout.readline()
    wait_for(lambda: service.alive() == 0, 10, "the account to go")
    wait_for(lambda: leases(ready) == [], 10, "the lease to end")


def test_a_hung_daemon_is_given_up(ready, so, place, service, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HSMINT_TIMEOUT", "1")
    client = Client(ready, so, place)
    try:
        client.ok("open")
        client.ok(f"login {PIN}")
        ready.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert client.ask("mint my-app token 0").startswith("0x")
        assert 0.9 < time.monotonic() - began < patience(10)
        ready.process.send_signal(signal.SIGCONT)
        client.ok("mint my-app token 0")
    finally:
        ready.process.send_signal(signal.SIGCONT)
        client.end()


# ---- 3.x ----


def test_profiles_and_the_audit_key_are_public(tool, ready):  # noqa: F811
    listed = tool.run("-O", login=False).decode()
    assert "hsmint-log-1" in listed and "EC_POINT" in listed
    assert "CKP_BASELINE_PROVIDER" in listed and "CKP_EXTENDED_PROVIDER" in listed
    assert audit_key(ready)[-65:].hex() in listed


def audit_key(daemon):
    """The HSM's, as a verifier would read it."""
    with daemon.attached() as c:
        keys = c.call("Status")["status"]["hsm"]["keys"]
    (log,) = [k for k in keys if k["use"] == "log"]
    return base64.b64decode(log["public_key"])


def test_pkcs11_tool_exports_the_audit_key(tool, ready):  # noqa: F811
    not_sanitized("pkcs11-tool 0.23 itself uses freed memory to export an EC key")
    got = tool.run("--read-object", "--type", "pubkey", "--label", "hsmint-log-1", login=False)
    assert got == audit_key(ready)


def test_p11tool_exports_the_audit_key(tool, ready, so):  # noqa: F811
    p11tool = [need("p11tool"), "--provider", so, "--batch"]

    def run(*options):
        r = subprocess.run([*p11tool, *options], env=tool.environment, capture_output=True, text=True, timeout=60)
        assert r.returncode == 0, (options, r.stdout, r.stderr)
        return r.stdout

    token = re.search(r"URL: (pkcs11:\S*token=hsmint\b\S*)", run("--list-tokens"))[1]
    url = re.search(r"URL: (\S*object=hsmint-log-1\S*)", run("--list-all", token))[1]
    pem = run("--export", url)
    with ready.attached() as c:
        keys = c.call("Status")["status"]["hsm"]["keys"]
    (log,) = [k for k in keys if k["use"] == "log"]
    body = "".join(line for line in pem.splitlines() if line and "-" not in line and ":" not in line)
    assert body == log["public_key"]


def test_random_numbers(tool, user, ready):  # noqa: F811
    (a,), (b,) = user.ok("random 64"), user.ok("random 64")
    assert len(bytes.fromhex(a)) == 64 and a != b
    assert len(tool.run("--generate-random", "3000", login=False)) == 3000
    assert "rng" in tool.run("-L", login=False).decode()


def test_a_new_organisation_is_a_slot_event(user, ready):
    assert user.ask("event now") == "0x8"  # CKR_NO_EVENT
    user.process.stdin.write("event\n")
    with ready.attached() as c:
        c.change("Init", org="lab")
        slots = c.call("Slots")["slots"]
    (new,) = [s["id"] for s in slots if s["org"] == "lab"]
    assert user.process.stdout.readline().split() == ["ok", str(new)]


def test_slot_ids_and_serials_do_not_move(ready):
    def seen():
        with ready.attached() as c:
            return {s["org"]: (s["id"], s["serial"]) for s in c.call("Slots")["slots"]}

    first = seen()
    with ready.attached() as c:
        for org in ("zoo", "lab", "able"):
            c.change("Init", org=org)
    four = seen()
    assert len(set(four.values())) == 4 and len({serial for _, serial in four.values()}) == 4
    assert four["default"] == first["default"]
    ready.kill()
    ready.start()
    assert seen() == four
    with ready.attached() as c:
        c.change("DeleteConfig", org="lab")
    assert seen() == four  # what is configured may go, its slot does not


# ---- what a caller does: rows that test_pkcs11.py has not ----


def test_mint_by_create_object(tool, user, service, place):  # noqa: F811
    (handle,) = user.ok("create my-app")
    (key,) = user.ok(f"read {handle}")
    assert service.accepts(key)
    one = place / "one"
    one.write_bytes(b"x")  # tools want a file: its one byte is passed over
    write = ["--write-object", one, "--type", "secrkey", "--label", "my-app", "--extractable"]
    tool.run(*write)
    assert service.alive() == 2
    one.write_bytes(b"more than a byte")
    assert "CKR_ATTRIBUTE_VALUE_INVALID" in tool.fails(*write)
    assert service.alive() == 2


def test_without_a_label_the_default_role(tool, ready, service):  # noqa: F811
    bare = ["--keygen", "--key-type", "GENERIC:32", "--extractable"]
    tool.fails(*bare)
    with ready.attached() as c:
        c.change("SetRole", name="my-app", fields={"project_id": PROJECT, "default": True})
        names = [r["name"] for r in c.call("ListRoles")["roles"] if r.get("default")]
    if names != ["my-app"]:
        pytest.skip("roles have no default here")
    tool.run(*bare)
    assert leases(ready)[0]["role"] == "my-app"


def test_generating_the_admin_key_rotates_it(user, tool, ready, service):  # noqa: F811
    with ready.attached() as c:
        old = c.call("GetConfig")["config"]["admin_api_key_id"]
        user.ok("mint admin-key token 0")
        new = c.call("GetConfig")["config"]["admin_api_key_id"]
    assert new != old
    # The old one goes later: test_rotate.py; that holds up no other rotation.
    assert new in [k["id"] for k in service.control("state?alive=1")["admin_keys"]]
    tool.run("--keygen", "--key-type", "GENERIC:32", "--label", "my-app", "--extractable")
    tool.run("--keygen", "--key-type", "GENERIC:32", "--label", "admin-key", "--extractable")
    with ready.attached() as c:
        assert c.call("GetConfig")["config"]["admin_api_key_id"] not in (old, new)


def test_configuration_as_data(tool):  # noqa: F811
    read = ["--read-object", "--type", "data", "--application-label", "hsmint:config", "--label", "config"]
    config = json.loads(tool.run(*read))
    assert config["organization_id"] == "org-adminsim" and "admin_api_key" not in config


def test_listing_is_newest_first_and_hands_out_no_key(tool, ready):  # noqa: F811
    for name in ("01", "02", "03"):
        tool.mint("my-app", "--id", name)
    listed = tool.run("-O", "--type", "secrkey").decode()
    assert re.findall(r"(?m)^\s*ID:\s+(0\d)$", listed) == ["03", "02", "01"]
    assert key_in(listed) is None


# ---- the HSM goes away ----


def test_a_token_without_its_hsm_is_present_and_says_why(tool, user, ready, service):  # noqa: F811
    (old,) = user.ok("mint my-app token 0")
    hidden = ready.token.directory.with_name("hidden")
    ready.token.directory.rename(hidden)
    ready.kill()  # so that nothing of the token is left in memory
    ready.start()
    try:
        assert "token initialized" in tool.run("-L", login=False).decode()
        # What needs no HSM: the log's key is known, leases are listed.
        assert "hsmint-log-1" in tool.run("-O", login=False).decode()
        assert user.ask("random 8").startswith("0x30")  # CKR_DEVICE_ERROR
        answer = user.ask("mint my-app token 0")
        assert answer.startswith("0x") and " ".join(user.ok("why"))
        (key,) = user.ok(f"read {old}")
        assert service.accepts(key)
    finally:
        hidden.rename(ready.token.directory)
    ready.kill()
    ready.start()
    answer = user.ask("mint my-app token 0")
    if answer.startswith("0x101"):
        user.ok(f"login {PIN}")
        user.ok("mint my-app token 0")
    user.ok("random 8")
