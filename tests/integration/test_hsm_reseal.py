"""The seal key gets another generation: what the old one sealed is sealed anew while all goes
on, and after whatever ends in the middle nothing is unreadable and no admin key is lost."""

import os
import re
import signal
import sqlite3
import struct
import subprocess
import threading
import time

import pytest

from conftest import PROJECT, wait_for
from test_hsm_rotate import destroy, head, holds, keys, mints, objects, quiet, records, refused, rotate, verb
from varlink import Error, request_id

ORGS = ("default", "acme", "beta")
ROLES = {
    "my-app": {},
    "kept": {"keep_value": True},
    "again": {"reuse": True},
    "proven": {"prove_death": True},
    "both": {"keep_value": True, "prove_death": True},
}


def prepare(daemon, orgs=ORGS):
    """Several organisations, each with all kinds of roles."""
    service = daemon.service
    with daemon.attached(timeout=60) as c:
        for org in orgs:
            if org != "default":
                c.change("Init", org=org)
                c.change(
                    "SetConfig",
                    org=org,
                    secret=service.admin_key.encode(),
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
    import base64
    import json

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
