"""The seal key gets another generation: what the old one sealed is sealed anew while all goes
on, and after whatever ends in the middle nothing is unreadable and no admin key is lost."""

import base64
import json
import os
import sqlite3
import struct
import subprocess
import threading
import time

import pytest

from auditcli import hsmint
from conftest import PROJECT, not_sanitized, only_root_looks, wait_for
from stopat import StoppedAt
from test_hsm_rotate import cells, destroy, holds, keys, mints, objects, quiet, records, refused, rotate, verb
from test_memory import find, stopped
from varlink import Error, request_id

ORGS = ("default", "acme", "beta")
ROLES = {
    "my-app": {},
    "kept": {"keep_value": True},
    "again": {"reuse": True},
    "proven": {"prove_death": True},
    "both": {"keep_value": True, "prove_death": True},
}


@pytest.fixture
def daemon(daemon_stopped):
    daemon_stopped.settings["hsm"]["deadline"] = "4s"
    daemon_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "2s"}
    return daemon_stopped.start()


def prepare(daemon, orgs=ORGS):
    """Several organisations, each with an admin key of its own and all kinds of roles."""
    service = daemon.service
    daemon.admin_keys = [service.admin_key]
    with daemon.attached(timeout=60) as c:
        for org in orgs:
            if org != "default":
                status, made = service.request(
                    "POST", service.url + "/organization/admin_api_keys", {"name": org}, bearer=service.admin_key
                )
                assert status == 200, made
                daemon.admin_keys.append(made["value"])
                c.change("Init", org=org)
                c.change(
                    "SetConfig",
                    org=org,
                    secret=daemon.admin_keys[-1].encode(),
                    fields={"api_endpoint": service.url, "organization_id": "org-adminsim"},
                    keep_first=True,
                )
            for role, more in ROLES.items():
                fields = {"project_id": PROJECT, "ttl": 3600, "max_ttl": 86400, **more}
                c.change("SetRole", org=org, name=role, fields=fields)
    return daemon


def label_of(blob):
    """The seal key's label in a blob's header: spec/SEAL.md."""
    assert blob[:4] == b"hmS1", blob[:16]
    at = 10
    for _ in range(4):
        at += 2 + struct.unpack_from(">H", blob, at)[0]
    n = struct.unpack_from(">H", blob, at)[0]
    return blob[at + 2 : at + 2 + n].decode()


def sealed(daemon):
    """(what, label of the key that sealed it) of everything sealed that the store has."""
    db = sqlite3.connect(f"file:{daemon.state / 'store.db'}?mode=ro", uri=True)
    found = [(f"org {name}", label_of(blob)) for name, blob in db.execute("SELECT name, admin_blob FROM org WHERE admin_blob IS NOT NULL")]
    for lease, value, probe in db.execute("SELECT id, sealed, probe FROM lease"):
        found += [(f"lease {lease}", label_of(b)) for b in (value, probe) if b is not None]
    for name, body in db.execute("SELECT name, body FROM document WHERE kind = 'rotation'"):
        body = json.loads(body)
        found += [(f"rotation {name} {m}", label_of(base64.b64decode(body[m]))) for m in ("sealed", "old_sealed") if body[m]]
    pins = json.loads(db.execute("SELECT value FROM meta WHERE key = 'hsm.pins'").fetchone()[0])
    found += [(m, label_of(base64.b64decode(pins[m]))) for m in ("probe", "hmac")]
    db.close()
    return found


def labels(daemon):
    return {label for _, label in sealed(daemon)}


def on_hsm(token):
    """Label of a private data object → the key that sealed it."""
    found = {}
    for org in ORGS:
        name = f"hsmint-admin-key-{org}"
        out = token.directory.parent / "object"
        out.unlink(missing_ok=True)
        subprocess.run(
            ["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin,
             "--read-object", "--type", "data", "--label", name, "-o", out],
            env={**os.environ, **token.environment}, capture_output=True)
        if out.exists() and out.stat().st_size:
            found[org] = label_of(out.read_bytes())
    return found


class Leases:
    """One of each kind of each organisation, and what each key is."""

    def __init__(self, daemon, orgs=ORGS, roles=tuple(ROLES)):
        self.daemon, self.values = daemon, {}
        with daemon.attached(timeout=60) as c:
            for org in orgs:
                for role in roles:
                    m = c.call("Mint", org=org, role=role, request_id=request_id())
                    self.values[m["lease"]["lease_id"]] = (role, m.secret.decode())

    def kept(self):
        return {i: v for i, (role, v) in self.values.items() if role in ("kept", "again", "both")}

    def readable(self):
        """Each key that is kept is what it was, by another application of the same caller."""
        with self.daemon.attached(timeout=60) as c:
            for lease, value in self.kept().items():
                assert c.call("ReadKey", lease_id=lease).secret.decode() == value, lease


def rotation(daemon):
    with daemon.attached() as c:
        return c.call("Status")["status"]["hsm"].get("rotation")


def settled(daemon, version):
    wait_for(lambda: quiet(rotation, daemon) is None and quiet(keys, daemon), 60, "the rotation to end")
    now = keys(daemon)
    assert (now["seal"], now["blob"]) == (f"hsmint-seal-{version}", f"hsmint-blob-{version}"), now
    assert labels(daemon) == {f"hsmint-seal-{version}"}, sealed(daemon)


def works(daemon, service):
    """Each organisation's admin key opens: it mints."""
    with daemon.attached(timeout=60) as c:
        for org in ORGS:
            assert service.accepts(c.call("Mint", org=org, role="my-app", request_id=request_id()).secret.decode())


def restart(daemon):
    daemon.stop()
    return daemon.start()


def test_the_seal_key(ready, service, token, place):
    prepare(ready)
    leases = Leases(ready)
    old = keys(ready)
    assert labels(ready) == {"hsmint-seal-1"} and set(on_hsm(token).values()) == {"hsmint-seal-1"}
    assert rotate(ready, "seal") == {"key": "seal", "state": "done"}
    assert keys(ready) == {**old, "seal": "hsmint-seal-2", "blob": "hsmint-blob-2"}
    settled(ready, 2)
    assert on_hsm(token) == dict.fromkeys(ORGS, "hsmint-seal-2")
    leases.readable()
    works(ready, service)
    assert [r["state"] for r in records(ready, "rotate-key")] == ["make", "take", "reseal", "prove", "done"]
    reseal, prove = [r for r in records(ready, "rotate-key") if "sealed_anew" in r]
    assert reseal["left"] == prove["left"] == prove["sealed_anew"] == 0
    assert reseal["sealed_anew"] == len(sealed(ready)) - 2
    seals = [r for r in records(ready, "seal") if r["version"]]
    assert [r["org"] for r in seals[-3:]] == list(ORGS)
    holds(ready, place)
    # The old keys may go once a start has shown that all goes on without them.
    for label in ("hsmint-seal-1", "hsmint-blob-1"):
        refused(ready, label, "Invalid", "restart hsmintd first")
    restart(ready)
    leases.readable()
    for label in ("hsmint-seal-1", "hsmint-blob-1"):
        assert destroy(ready, label)["state"] == "destroyed" and label not in objects(token)
    leases.readable()
    works(ready, service)
    restart(ready)
    leases.readable()
    works(ready, service)
    assert rotate(ready, "seal")["state"] == "done"
    settled(ready, 3)
    leases.readable()
    holds(ready, place)


# ---- while all goes on ----


class Callers:
    """They mint in all organisations, read what was kept, renew and revoke, all the time."""

    def __init__(self, daemon, leases):
        self.daemon, self.leases, self.stop, self.failed, self.done = daemon, leases, False, [], 0
        self.threads = [threading.Thread(target=self.call, args=(org,)) for org in ORGS]
        for t in self.threads:
            t.start()

    def call(self, org):
        kept = list(self.leases.kept().items())
        with self.daemon.attached(timeout=60) as c:
            while not self.stop:
                try:
                    for role in ("kept", "both"):
                        m = c.call("Mint", org=org, role=role, request_id=request_id())
                        id = m["lease"]["lease_id"]
                        c.change("Renew", lease_id=id, ttl=7200)
                        if c.call("ReadKey", lease_id=id).secret != m.secret:
                            self.failed.append(f"{id} is another key")
                        c.change("Revoke", lease_id=id)
                    lease, value = kept[self.done % len(kept)]
                    if c.call("ReadKey", lease_id=lease).secret.decode() != value:
                        self.failed.append(f"{lease} is another key")
                    self.done += 1
                except (Error, OSError, EOFError) as e:
                    self.failed.append(f"{org}: {e}")

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(60)


def test_callers_notice_nothing(ready, service, place):
    prepare(ready)
    leases = Leases(ready)
    callers = Callers(ready, leases)
    try:
        for n in range(3):
            wait_for(lambda n=n: callers.failed or callers.done > 3 * n, 60, "callers")
            assert rotate(ready, "seal")["state"] == "done"
    finally:
        callers.end()
    assert not callers.failed, callers.failed[:3]
    settled(ready, 4)
    leases.readable()
    works(ready, service)
    holds(ready, place)
    print(f"# {callers.done} rounds of mint, renew, read and revoke across 3 rotations, none failed")


def test_while_admin_keys_rotate(ready, service, token):
    """One is being made and tried, one does not go: both go on, and none is lost."""
    prepare(ready)
    service.fault(kind="status", status=500, method="DELETE", path="*/admin_api_keys/*", times=-1)
    with ready.attached(timeout=60) as c:
        c.change("RotateConfig", org="acme")
        service.fault(kind="status", status=503, method="GET", path="*/admin_api_keys*", times=-1)
        t = threading.Thread(target=quiet, args=(lambda: c.change("RotateConfig", org="beta"),))
        t.start()
        wait_for(lambda: any("rotation beta" in what for what, _ in sealed(ready)), 20, "the key to be made")
        began = {what for what, _ in sealed(ready) if what.startswith("rotation")}
        assert any("acme" in what for what in began) and any("beta" in what for what in began), began
        done = rotate(ready, "seal")
        assert done["state"] in ("reseal", "prove", "done"), done
        service.control("faults", method="DELETE")
        t.join()
    settled(ready, 2)
    works(ready, service)
    wait_for(lambda: not any(what.startswith("rotation") for what, _ in sealed(ready)), 60, "the rotations to end")
    assert on_hsm(token) == dict.fromkeys(ORGS, "hsmint-seal-2")
    works(ready, service)


# ---- what ends in the middle ----

STEPS = [(v, step, skip)
         for v, skips in (("ROTATE_KEY", (0, 1)), ("PROVISION", (0,)), ("RESEAL", (0, 4)), ("USE_KEY", (1,)))
         for skip in skips
         for step in ("ask", "keeper-asked", "keeper-done", "answered")]


@pytest.fixture
def stoppable(place, token, service):
    not_sanitized("a sanitizer wants to be loaded first")
    d = StoppedAt(place, token, service)
    d.settings["hsm"]["deadline"] = "2s"
    yield d.start().prepare()
    d.end()


@pytest.mark.parametrize("who", ["daemon", "keeper"])
def test_killed_at_every_step(who, stoppable, token, service, place):
    d = prepare(stoppable)
    leases = Leases(d)
    version = 1
    for v, step, skip in cells(STEPS, who):
        d.killed_at_verb(who, step, verb(v), skip, quiet, rotate, d, "seal")
        wait_for(lambda: quiet(mints, d), 20, "a mint")
        wait_for(lambda: not rotation(d), 40, "the rotation to end")
        now = int(keys(d)["seal"].rsplit("-", 1)[1])
        assert now == version + 1 or (now == version and v == "ROTATE_KEY" and not skip), (v, step, skip)
        settled(d, now)
        assert on_hsm(token) == dict.fromkeys(ORGS, f"hsmint-seal-{now}"), (v, step, skip)
        leases.readable()
        there = objects(token)
        assert {k for k in there if "seal" in k or "blob" in k} == {f"hsmint-{use}-{n}" for use in ("seal", "blob") for n in range(1, now + 1)}
        print(f"# {who} killed at {v.lower()} {step} {skip}: version {version} → {now}")
        version = now
    works(d, service)
    holds(d, place)


def change(daemon, sql, *values):
    """In the store, with the daemon down."""
    db = sqlite3.connect(daemon.state / "store.db")
    assert db.execute(sql, values).rowcount == 1
    db.commit()
    db.close()


def row(daemon, sql, *values):
    db = sqlite3.connect(f"file:{daemon.state / 'store.db'}?mode=ro", uri=True)
    found = db.execute(sql, values).fetchone()
    db.close()
    return found


def test_what_was_left_is_found(ready, service, token):
    """However it came to be in the store: a start seals it anew."""
    prepare(ready)
    leases = Leases(ready, roles=("both",))
    lease = next(iter(leases.values))
    old = row(ready, "SELECT sealed, probe FROM lease WHERE id = ?", lease)
    key = row(ready, "SELECT admin_blob FROM org WHERE name = 'acme'")[0]
    assert rotate(ready, "seal")["state"] == "done"
    ready.stop()
    change(ready, "UPDATE lease SET sealed = ?, probe = ? WHERE id = ?", *old, lease)
    change(ready, "UPDATE org SET admin_blob = ? WHERE name = 'acme'", key)
    assert labels(ready) == {"hsmint-seal-1", "hsmint-seal-2"}
    ready.start()
    wait_for(lambda: labels(ready) == {"hsmint-seal-2"}, 30, "what is left to be sealed anew")
    leases.readable()
    works(ready, service)
    refused(ready, "hsmint-blob-1", "Invalid", "opened since")
    restart(ready)
    wait_for(lambda: quiet(mints, ready), 20, "a mint")
    assert destroy(ready, "hsmint-blob-1")["state"] == destroy(ready, "hsmint-seal-1")["state"] == "destroyed"
    leases.readable()
    works(ready, service)


def spoil(daemon, lease):
    daemon.stop()
    blob = bytearray(row(daemon, "SELECT sealed FROM lease WHERE id = ?", lease)[0])
    blob[-100] ^= 1
    change(daemon, "UPDATE lease SET sealed = ? WHERE id = ?", bytes(blob), lease)
    daemon.start()
    wait_for(lambda: quiet(mints, daemon), 20, "a mint")


def abandon(daemon, key):
    with daemon.attached(timeout=60) as c:
        return c.change("RotateHsm", name=key, abandon=True)["rotation"]


def test_a_key_that_does_not_open(ready, service, token):
    """Holds up no other, is named, and is let go with its lease, or with the rotation."""
    prepare(ready)
    leases = Leases(ready, roles=("kept",))
    lease, _ = leases.values.popitem()
    spoil(ready, lease)
    with pytest.raises(Error) as e:
        rotate(ready, "seal")
    assert e.value.name == "Seal" and lease in e.value.text and "goes on by itself" in e.value.text
    assert [what for what, label in sealed(ready) if label != "hsmint-seal-2"] == [f"lease {lease}"]
    left = rotation(ready)
    assert (left["key"], left["state"], left["left"]) == ("seal", "reseal", 1) and "lease revoke" in left["error"]
    leases.readable()
    works(ready, service)
    for key in ("call", "seal"):
        with pytest.raises(Error) as e:
            rotate(ready, key)
        assert e.value.name == "Exists"
    with pytest.raises(Error) as e:
        abandon(ready, "call")
    assert e.value.name == "NotFound"
    # Let go: what it could not do is left, and the old key is not destroyed for it.
    gone = abandon(ready, "seal")
    assert (gone["state"], gone["was"]) == ("abandoned", "reseal") and "has to stay on the HSM" in gone["text"]
    assert not rotation(ready) and records(ready, "rotate-key")[-1]["state"] == "abandoned"
    restart(ready)
    wait_for(lambda: quiet(mints, ready), 20, "a mint")
    refused(ready, "hsmint-seal-1", "Invalid", lease)
    with pytest.raises(Error) as e:
        abandon(ready, "seal")
    assert e.value.name == "NotFound"
    # The next one finds it, and ends by itself once the lease is revoked.
    with pytest.raises(Error):
        rotate(ready, "seal")
    with ready.attached() as c:
        c.change("Revoke", lease_id=lease)
    settled(ready, 3)
    restart(ready)
    leases.readable()
    for label in ("hsmint-seal-1", "hsmint-blob-1", "hsmint-seal-2", "hsmint-blob-2"):
        assert destroy(ready, label)["state"] == "destroyed"
    leases.readable()
    works(ready, service)


def delete(token, label, *kinds):
    for kind in kinds:
        subprocess.run(
            ["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin,
             "--delete-object", "--type", kind, "--label", label],
            env={**os.environ, **token.environment}, capture_output=True, check=True)


def test_let_go_before_the_key_is_taken(stoppable, service, token):
    """The new key vanishes between its pins and the keeper: nothing works until that is let go."""
    d = prepare(stoppable)
    leases = Leases(d, roles=("kept",))
    d.stop_at_verb("ask", verb("PROVISION"))
    t = threading.Thread(target=quiet, args=(rotate, d, "seal"))
    t.start()
    wait_for(d.stopped, 20, "the pins to be stored")
    delete(token, "hsmint-seal-2", "secrkey")
    d.kill()
    d.go_on()
    t.join()
    d.start()
    assert not quiet(mints, d)
    assert rotation(d)["state"] == "take"
    wait_for(lambda: "hsmint-seal-2" in rotation(d)["error"], 20, "the cause")
    gone = abandon(d, "seal")
    assert gone["was"] == "take" and "in use again" in gone["text"]
    wait_for(lambda: quiet(mints, d), 20, "a mint")
    assert keys(d)["seal"] == "hsmint-seal-1" and labels(d) == {"hsmint-seal-1"}
    leases.readable()
    works(d, service)
    assert rotate(d, "seal")["state"] == "done"
    leases.readable()
    restart(d)
    works(d, service)
    leases.readable()


def test_let_go_before_the_key_is_made(stoppable, service, token):
    d = stoppable
    d.stop_at_verb("ask", verb("ROTATE_KEY"), 1)
    t = threading.Thread(target=quiet, args=(rotate, d, "seal"))
    t.start()
    wait_for(d.stopped, 20, "the plan to be stored")
    d.kill()
    d.go_on()
    t.join()
    away = token.directory.with_name("away")
    token.directory.rename(away)
    d.start()
    assert rotation(d)["state"] == "make"
    gone = abandon(d, "seal")
    assert gone["was"] == "make" and "nothing has changed" in gone["text"]
    away.rename(token.directory)
    wait_for(lambda: quiet(mints, d), 20, "a mint")
    assert not rotation(d) and keys(d)["seal"] == "hsmint-seal-1"
    assert rotate(d, "seal")["state"] == "done"


def test_let_go_without_the_old_signature(stoppable, service, token, place):
    """The log's old key vanishes before it has signed beside the new one."""
    d = stoppable
    d.stop_at_verb("ask", verb("SIGN_CHECKPOINT"))
    t = threading.Thread(target=quiet, args=(rotate, d, "log"))
    t.start()
    wait_for(d.stopped, 20, "a checkpoint")
    if rotation(d)["state"] != "sign":  # an earlier one
        pytest.skip("a checkpoint was signed just then")
    d.kill()
    d.go_on()
    t.join()
    for label in [k for k in objects(token) if k in ("hsmint-log-1", "hsmint-log-ed25519-1")]:
        delete(token, label, "privkey")
    d.start()
    wait_for(lambda: (rotation(d) or {}).get("error"), 30, "the cause")
    assert rotation(d)["state"] == "sign"
    gone = abandon(d, "log")
    assert gone["was"] == "sign" and "hsmint audit key" in gone["text"]
    assert not rotation(d) and service.accepts(mints(d))
    restart(d)
    assert service.accepts(mints(d)) and keys(d)["log"] == "hsmint-log-2"


# ---- backups ----


def test_a_backup_from_before(ready, service, token, place):
    """Goes on with the old key while that is on the HSM, and says what is missing after."""
    prepare(ready)
    leases = Leases(ready, roles=("kept",))
    env = {"HSMINT_SOCKET": str(ready.socket)}
    hsmint("backup", place / "old", env=env)
    assert rotate(ready, "seal")["state"] == "done"
    ready.stop()
    hsmint("restore", place / "old", "--state", ready.state)
    ready.start()
    wait_for(lambda: quiet(keys, ready).get("seal") == "hsmint-seal-1", 20, "the keys of before")
    leases.readable()
    hsmint("audit", "accept-rollback", "--reason", "a rehearsal", env=env)
    works(ready, service)
    assert rotate(ready, "seal")["state"] == "done"
    settled(ready, 3)  # 2 is on the HSM, and unknown to this state
    leases.readable()
    works(ready, service)
    restart(ready)
    assert destroy(ready, "hsmint-seal-1")["state"] == "destroyed"
    works(ready, service)
    ready.stop()
    hsmint("restore", place / "old", "--state", ready.state)
    ready.start()
    assert not quiet(mints, ready)
    with ready.attached() as c:
        alarms = {a["id"]: a for a in c.call("Status")["status"]["alarms"]}
    assert "hsmint-seal-1" in alarms["hsm-keys"]["text"]


# ---- memory ----


def test_no_admin_key_is_left(ready, service):
    """In the daemon at no time; in the keeper not after."""
    only_root_looks()
    not_sanitized("a sanitizer keeps what was freed")
    prepare(ready)
    leases = Leases(ready, roles=("kept", "proven"))
    wanted = [*ready.admin_keys, *(v for _, v in leases.values.values())]
    stop, seen = threading.Event(), []

    def watch():
        while not stop.is_set():
            seen.append(find(ready.process.pid, ready.admin_keys))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(3):
            assert rotate(ready, "seal")["state"] == "done"
    finally:
        stop.set()
        watcher.join(60)
    assert seen and not any(seen), seen
    time.sleep(0.5)
    keeper = ready.keeper()
    with stopped(ready.process.pid), stopped(keeper):
        assert find(ready.process.pid, wanted) == []
        assert find(keeper, wanted) == []
