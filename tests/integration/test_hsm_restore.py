"""The HSM is gone and another one is in its place: `hsmint hsm restore`. Two tokens, the first
one's directory deleted; leases, log and `whose` go on, with the recovery key and without."""

import json
import os
import re
import shutil
import signal
import subprocess
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
    wait_for(lambda: not set(gone) & set(admin_keys(service)) and len(admin_keys(service)) == 2, 30, "the old admin keys to go")
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
    assert {(r["key"] in new.values(), r["state"], r["reason"]) for r in records(d, "key-state") if r["reason"] != "init"} == {
        (True, "active", "restored"), (False, "destroyed", "lost")}
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
    again = cli(d, "hsm", "restore", "--dry-run")
    assert "What went" in again and "What goes" not in again
    print("#", v if isinstance(v, str) else "verified")


@pytest.fixture
def escrowed(daemon_stopped, service, recovery):
    """As `watched`, with a recovery key."""
    d = short(daemon_stopped)
    d.settings["hsm"]["recovery_key"] = recovery[1]
    d.start().prepare()
    (own,) = admin_keys(service)
    _, service.admin_key = new_admin_key(service, "the watcher's")
    return d, own


def secret_file(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def hand_key(service, place):
    return f"admin_api_key=@{secret_file(place / 'by-hand', new_admin_key(service)[1])}"


def test_with_the_recovery_key(escrowed, recovery, service, place):
    """Named logins, markers and `whose` go on; keys that are wrong change nothing."""
    d, own = escrowed
    with d.attached() as c:
        login = c.change("CreateLogin", name="batch", fields={}).secret
    one, key = mint(d)
    hmac = opened(d, recovery[0], place)
    assert [r["recovery_key"] for r in records(d, "escrow")] and hmac.read_text() not in d.log()
    second = burn(d, place)
    assert re.fullmatch(rb"[0-9a-f]{64}", opened(d, recovery[0], place).read_bytes())  # without the HSM, too
    wrong = secret_file(place / "wrong", "ab" * 32)
    assert "another key" in restore(d, f"hmac_key=@{wrong}", status=1)
    assert "64 hex" in restore(d, f"hmac_key=@{secret_file(wrong, 'nonsense')}", status=1)
    assert "not on the command line" in restore(d, "hmac_key=" + hmac.read_text(), status=2)
    assert not [o for o in objects(second) if o.startswith("hsmint-")]
    # The admin key is refused by the service: the HSM is restored, and that is what is left.
    said = restore(d, f"hmac_key=@{hmac}", f"admin_api_key=@{secret_file(place / 'bad', 'sk-admin-nobody')}", status=1)
    assert "does not know this admin key" in said and "--org default" in said
    assert "admin-key" in alarms(d) and keys(d)["seal"] == "hsmint-seal-2"
    said = restore(d, f"hmac_key=@{hmac}", hand_key(service, place))
    assert "go on" in said
    settles(service, own)
    # The same keyed hash: the login, the lease of a key of before, the markers.
    with d.connect() as c:
        c.attach("pytest")
        c.call("Login", secret=login, name="batch")
    assert one["lease_id"] in whose(d, key)
    said = json.loads(cli(d, "reconcile", "--json"))
    assert {f["finding"] for f in said["findings"]} <= {"foreign-admin-key"}, said  # the watcher's
    assert json.loads(cli(d, "hsm", "recovery", "--json"))["recovery_key"]
    assert "admin-key" not in alarms(d) and len(records(d, "escrow")) == 1
    assert hmac.read_text() not in d.log() and hmac.read_bytes() not in (d.state / "store.db").read_bytes()


def test_accounts_of_before_without_the_recovery_key(watched, service, place):
    d, own = watched
    mint(d)
    status, _ = service.request("POST", f"{service.url}/organization/projects/{PROJECT}/service_accounts",
                                {"name": "somebody's"}, service.admin_key)
    assert status == 200
    burn(d, place)
    restore(d, hand_key(service, place))
    mint(d)
    said = json.loads(cli(d, "reconcile", "--json"))
    assert [f["finding"] for f in said["findings"] if f["finding"] != "foreign-admin-key"] == ["foreign"], said
    assert service.alive() == 3
    settles(service, own)


def test_several_organisations(watched, service, place):
    d, own = watched
    _, value = new_admin_key(service, "of the other")
    with d.attached() as c:
        c.change("Init", org="other")
        c.change("SetConfig", org="other", secret=value.encode(),
                 fields={"api_endpoint": service.url, "organization_id": "org-adminsim"}, keep_first=True)
        c.change("Init", org="empty")
    other = [i for i, n in admin_keys(service).items() if n == "of the other"]
    burn(d, place)
    said = restore(d)
    assert "--org default" in said and "--org other" in said and "--org empty" not in said
    wait_for(lambda: "admin-key" in alarms(d), 10, "the alarm")
    with pytest.raises(Error) as e:
        mint(d)
    assert e.value.name == "NoAdminKey", e.value
    d.kill()
    d.start()
    assert "admin-key" in alarms(d)
    said = restore(d, hand_key(service, place))
    assert "--org default" not in said and "--org other" in said
    assert service.accepts(mint(d)[1]) and "admin-key" in alarms(d)
    cli(d, "config", "set", "--org", "other", "admin_api_key=-", stdin=new_admin_key(service)[1].encode())
    wait_for(lambda: not {own, *other} & set(admin_keys(service)), 30, "the old admin keys to be deleted")
    assert "admin-key" not in alarms(d)


def test_the_old_hsm_comes_back(watched, service, place):
    """One that was only away is not replaced; one that was given up is refused."""
    d, own = watched
    away = d.token.directory.with_name("away")
    d.token.directory.rename(away)
    first = d.token
    d.stop()
    second = move(d, Token(place, "second"))
    assert "1 admin keys" in cli(d, "hsm", "restore", "--dry-run")
    # It was only away.
    away.rename(first.directory)
    d.stop()
    move(d, first)
    assert "it is not lost" in restore(d, status=1) and service.accepts(mint(d)[1])
    assert not records(d, "restore") and objects(second) == {}
    # It is given up, and comes back.
    d.stop()
    move(d, second)
    restore(d, hand_key(service, place))
    assert service.accepts(mint(d)[1])
    d.stop()
    move(d, first)
    wait_for(lambda: "hsm-keys" in alarms(d), 10, "the alarm")
    assert "given up" in restore(d, status=1) and "gave up" in cli(d, "doctor", status=1)
    d.stop()
    move(d, second)
    assert service.accepts(mint(d)[1])
    # Another instance's token is not taken either.
    burn(d, place, "third")
    shutil.rmtree(d.token.directory)
    shutil.copytree(first.directory, d.token.directory)
    d.stop()
    d.settings["hsm"]["uri"] = f"pkcs11:token={first.label}"
    d.start()
    assert "given up" in restore(d, status=1)


def test_a_backup_on_a_new_host(watched, service, place):
    d, own = watched
    backup = place / "backup"
    one, key = mint(d)
    cli(d, "backup", backup)
    shutil.rmtree(d.token.directory)
    d.stop()
    shutil.rmtree(d.state)
    d.state.mkdir(mode=0o700)
    cli(d, "restore", backup, "--state", d.state)
    move(d, Token(place, "second"))
    restore(d, hand_key(service, place))
    assert lease(d, one["lease_id"])["state"] == "active" and service.accepts(mint(d)[1])
    assert "state-restored" in alarms(d) and "resumed 1" in head(d) and head(d).splitlines()[0].endswith("/1")
    cli(d, "reconcile", "--adopt")
    assert service.accepts(key)
    settles(service, own)


def test_verification_without_the_new_key(watched, place):
    d, _ = watched
    first, copy = vkeys(d), place / "copy"
    export(d, copy)
    burn(d, place)
    restore(d)
    export(d, copy)
    v = verdict(copy, "--key", first[0], status=1)
    assert "The HSM was replaced at record" in json.dumps([f for f in v["findings"] if f["what"] == "checkpoint"]), v
    assert {f["what"] for f in v["findings"]} <= {"checkpoint", "restored", "call-key", "open"}, v
    v = verdict(copy, "--key", first[0], "--key", vkeys(d)[0])
    assert any(n["what"] == "restored" and "hsmint-log-2" in n["text"] for n in v["findings"]), v


STEPS = [("ask", 0), ("keeper-asked", 0), ("keeper-done", 0), ("answered", 0),
         ("ask", 1), ("keeper-asked", 1), ("keeper-done", 1), ("answered", 1)]


@pytest.mark.parametrize("who", ["daemon", "keeper"])
def test_killed_at_every_step(who, place, token, service):
    """SIGKILL at each step of planning and making; the same command goes on, and ends the same way."""
    not_sanitized("a sanitizer wants to be loaded first")
    d = short(StoppedAt(place, token, service))
    d.start().prepare()
    _, service.admin_key = new_admin_key(service, "the watcher's")
    try:
        for n, (step, skip) in enumerate(STEPS[who == "keeper"::2] if not os.environ.get("HSMINT_LONG") else STEPS, 2):
            _, key = mint(d)
            new = burn(d, place, f"t{n}")
            words = [hand_key(service, place)]
            d.killed_at_verb(who, step, verb("RESTORE_KEYS"), skip + 1, quiet_restore, d, *words)  # after the dry run's
            restore(d, *words)
            assert set(keys(d).values()) == {l for l in objects(new) if re.fullmatch(r"hsmint-(seal|blob|call|log|log-ed25519)-\d+", l)}
            assert keys(d)["seal"] == f"hsmint-seal-{n}"
            assert service.accepts(key) and service.accepts(mint(d)[1])
            left = list(admin_keys(service).values())
            wait_for(lambda: len(admin_keys(service)) == 2, 30, f"old admin keys to go: {left}")
            print(f"# {who} killed at {step} {skip}: restored")
        copy = place / "copy"
        export(d, copy)
        verdict(copy)
        assert "lost" not in head(d) and "resumed" not in head(d)
    finally:
        d.end()


def quiet_restore(daemon, *words):
    subprocess.run([program("hsmint"), "hsm", "restore", "--yes", "--reason", REASON, *words],
                   env={**os.environ, "HSMINT_SOCKET": str(daemon.socket)}, stdin=subprocess.DEVNULL,
                   capture_output=True, timeout=120)


def test_the_disk_is_full(watched, service, place):
    """The keys are restored from the reserve; the admin key waits for room, and the same command goes on."""
    d, own = watched
    shutil.rmtree(d.token.directory)
    d.stop()
    d.settings["daemon"]["disk_reserve"] = "1000G"
    move(d, Token(place, "second"))
    words = [hand_key(service, place)]
    said = restore(d, *words, status=1)
    assert "the admin key of default is not set" in said and keys(d)["seal"] == "hsmint-seal-2", said
    d.stop()
    del d.settings["daemon"]["disk_reserve"]
    d.start()
    assert "Next" not in restore(d, *words) and service.accepts(mint(d)[1])
    assert [r["state"] for r in records(d, "restore")] == ["make", "done"]
    settles(service, own)


def test_the_pin_by_hand(daemon_stopped, service, place):
    """No source of it is configured: the command that restores the HSM is the one that is given it."""
    d = short(daemon_stopped)
    del d.settings["hsm"]["pin_source"]
    d.start()
    with d.attached() as c:
        c.call("Login", secret=d.token.pin.encode())
    d.prepare()
    (own,) = admin_keys(service)
    _, service.admin_key = new_admin_key(service, "the watcher's")
    burn(d, place)
    pin = secret_file(place / "pin", d.token.pin)
    assert "--pin-file" in cli(d, "hsm", "restore", "--dry-run", status=3)
    assert "1 admin keys" in cli(d, "hsm", "restore", "--dry-run", "--pin-file", pin)
    d.stop()
    d.start()
    restore(d, hand_key(service, place), "--pin-file", pin)
    assert service.accepts(mint(d)[1]) and not alarms(d) & {"locked", "hsm-keys", "admin-key"}
    # It is kept for the next keeper, as ever.
    os.kill(d.keeper(), signal.SIGKILL)
    wait_for(lambda: quiet(mint, d), 10, "a mint")
    settles(service, own)
