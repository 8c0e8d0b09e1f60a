"""The HSM is gone and another one is in its place: `hsmint hsm restore`. Two tokens, the first
one's directory deleted; leases, log and `whose` go on, with the recovery key and without."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from auditcli import verdict
from conftest import PROJECT, Token, not_sanitized, program, wait_for
from stopat import StoppedAt
from test_hsm_rotate import export, head, keys, objects, quiet, records, verb, vkeys
from varlink import Error, request_id

REASON = "the HSM burnt"


def cli(daemon, *words, status=0, stdin=b"", text=True):
    r = subprocess.run(
        [program("hsmint"), *words],
        env={**os.environ, "HSMINT_SOCKET": str(daemon.socket), "HSMINT_CONFIG": str(daemon.config)},
        input=stdin, capture_output=True, timeout=120)
    assert r.returncode == status, (words, r.returncode, r.stdout, r.stderr)
    return (r.stdout + r.stderr).decode() if text else r.stdout


def mint(daemon, role="my-app", **more):
    with daemon.attached(timeout=60) as c:
        reply = c.call("Mint", role=role, request_id=request_id(), **more)
    return reply["lease"], reply.secret.decode()


def lease(daemon, lease_id):
    with daemon.attached() as c:
        return c.call("GetLease", lease_id=lease_id)["lease"]


def alarms(daemon):
    with daemon.attached() as c:
        return {a["id"] for a in c.call("Status")["status"]["alarms"]}


def admin_keys(service):
    """id → name, of those that the service has."""
    status, page = service.request("GET", service.url + "/organization/admin_api_keys?limit=100", bearer=service.admin_key)
    assert status == 200, page
    return {k["id"]: k["name"] for k in page["data"]}


def new_admin_key(service, name="made by hand"):
    status, made = service.request("POST", service.url + "/organization/admin_api_keys", {"name": name}, service.admin_key)
    assert status == 200, made
    return made["id"], made["value"]


def short(daemon):
    """Old admin keys go after seconds, not a minute."""
    daemon.settings["hsm"]["deadline"] = "4s"
    daemon.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "2s"}
    return daemon


@pytest.fixture
def watched(daemon_stopped, service):
    """The test asks by an admin key of its own: (the daemon, its admin key's id)."""
    d = short(daemon_stopped).start().prepare()
    (own,) = admin_keys(service)
    _, service.admin_key = new_admin_key(service, "the watcher's")
    return d, own


def burn(daemon, place, label="second"):
    """The token's directory is deleted under the daemon; the settings name another token."""
    shutil.rmtree(daemon.token.directory)
    daemon.stop()
    return move(daemon, Token(place, label))


def move(daemon, token):
    daemon.first = daemon.token
    daemon.token = token
    daemon.settings["hsm"].update(uri=f"pkcs11:token={token.label}")
    daemon.settings["hsm.env"] = dict(token.environment)
    daemon.start()
    return token


def restore(daemon, *words, **more):
    return cli(daemon, "hsm", "restore", "--yes", "--reason", REASON, *words, **more)


def settles(service, *gone):
    """The old admin keys are deleted by the new one; one of ours is left beside the watcher's."""
    wait_for(lambda: not set(gone) & set(admin_keys(service)), 30, "the old admin key to be deleted")
    left = list(admin_keys(service).values())
    assert len(left) == 2 and [n for n in left if n.startswith("hsmint-default-")], left


@pytest.fixture
def recovery(place):
    """A recovery key pair: (private, public), in PEM."""
    private, public = place / "recovery.pem", place / "recovery.pub"
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", private], **run)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], **run)
    public.chmod(0o644)
    return private, public


def opened(daemon, private, place):
    """What the recovery key's owner does: a file with the HMAC key."""
    sealed, file = place / "recovery.bin", place / "hmac.hex"
    sealed.write_bytes(cli(daemon, "hsm", "recovery", text=False))
    subprocess.run(["openssl", "pkeyutl", "-decrypt", "-inkey", private, "-in", sealed, "-out", file,
                    "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"], check=True)
    file.chmod(0o600)
    assert re.fullmatch(rb"[0-9a-f]{64}", file.read_bytes())
    return file


def whose(daemon, key, status=0):
    return cli(daemon, "audit", "whose", stdin=key.encode(), status=status)


def test_the_hsm_is_gone(watched, service, place):
    d, own = watched
    old, copy = keys(d), place / "copy"
    with d.attached() as c:
        c.change("SetRole", name="kept", fields={"project_id": PROJECT, "ttl": 3600, "max_ttl": 7200, "keep_value": True})
        c.change("CreateLogin", name="batch", fields={})
    one, key = mint(d)
    two, kept = mint(d, role="kept")
    brief, _ = mint(d, ttl=5)
    export(d, copy)
    first = vkeys(d)
    assert cli(d, "hsm", "recovery", status=4)
    # While its keys are there nothing is restored, whatever is asked.
    assert "it is not lost" in cli(d, "hsm", "restore", "--dry-run", status=1)
    assert "it is not lost" in restore(d, status=1)
    assert not records(d, "restore")
    second = burn(d, place)
    wait_for(lambda: "hsm-keys" in alarms(d), 10, "the alarm")
    assert "hsmint hsm restore" in cli(d, "doctor", status=1) and "hsm restore" in cli(d, "explain", "hsm-keys")
    with pytest.raises(Error):
        mint(d)
    # Told in numbers, and nothing done.
    said = cli(d, "hsm", "restore", "--dry-run")
    assert "1 admin keys" in said and "1 kept values" in said and "1 named logins" in said and "3 mints" in said
    assert "--yes" in cli(d, "hsm", "restore", "--reason", REASON, status=2)
    assert "--reason" in cli(d, "hsm", "restore", "--yes", status=2)
    assert objects(second) == {}
    hand_id, hand = new_admin_key(service)
    (place / "admin").write_text(hand + "\n")
    (place / "admin").chmod(0o600)
    said = restore(d, f"admin_api_key=@{place}/admin")
    assert "1 named logins" in said and "hsmint doctor" in said
    # Keys of the next version, of the same instance; the first one's are told as destroyed.
    new = keys(d)
    assert {u: l.rsplit("-", 1)[1] for u, l in new.items()} == {u: "2" for u in old}
    assert set(new.values()) <= set(objects(second))
    # Leases go on; what was sealed for them does not.
    again, other = mint(d)
    assert service.accepts(other) and service.accepts(key)
    assert lease(d, one["lease_id"])["state"] == "active" and not lease(d, two["lease_id"])["kept"]
    with d.attached() as c, pytest.raises(Error) as e:
        c.call("ReadKey", lease_id=two["lease_id"])
    assert e.value.name == "Sensitive"
    wait_for(lambda: lease(d, brief["lease_id"])["state"] == "revoked", 20, "the short lease to end")
    with d.attached() as c:
        c.change("Revoke", lease_id=one["lease_id"])
        c.change("Renew", lease_id=two["lease_id"], ttl=600)
    assert not service.accepts(key) and service.accepts(kept)
    # No admin key of before is left, nor the one that was seen by a person.
    settles(service, own, hand_id)
    # whose: of older mints it cannot be told, of newer ones it is.
    assert "cannot be told" in whose(d, kept, status=4) and again["lease_id"] in whose(d, other)
    # The log goes on: one tree, the next epoch, both keys, and it says what happened.
    export(d, copy)
    v = verdict(copy, "--key", first[0], "--key", vkeys(d)[0])
    assert "lost" not in head(d) and "resumed" not in head(d)
    assert head(d).splitlines()[0].endswith("/1")
    assert [r["state"] for r in records(d, "restore")] == ["make", "done"]
    assert not records(d, "rollback") and not alarms(d) & {"log-rolled-back", "state-restored", "hsm-keys", "admin-key"}
    d.stop()
    d.start()
    assert service.accepts(mint(d)[1]) and not alarms(d) & {"log-rolled-back", "hsm-keys"}
    # Asked again, it tells what was done, and does nothing.
    assert keys(d) == new and "Next" not in restore(d) and keys(d) == new
    print("#", v if isinstance(v, str) else "verified")
