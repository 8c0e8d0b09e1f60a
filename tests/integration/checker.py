"""What the service served, what the store holds and what the audit log says, compared:
every account was intended, every call has its intent, every intent came to an end."""

import base64
import hashlib
import json
import re
import sqlite3
import subprocess

from conftest import program, wait_for
from varlink import Error

STATES = ("pending", "active", "revoking", "revoked")


def nonce_of(signature_input):
    return re.search(r'nonce="([0-9a-f]+)"', signature_input)[1]


class Store:
    """The daemon's store at one moment, through a connection of its own."""

    def __init__(self, daemon):
        db = sqlite3.connect(f"file:{next(daemon.state.glob('*.db'))}?mode=ro", uri=True)
        try:
            db.execute("BEGIN")
            self.lines = list(db.execute("SELECT sequence, line FROM record ORDER BY sequence"))
            columns = "id, state, project, account_name, account_id, issued_ms, expires_ms, reason"
            rows = db.execute(f"SELECT {columns} FROM lease").fetchall()
            self.leases = [dict(zip(columns.split(", "), row)) for row in rows]
        finally:
            db.close()
        for lease in self.leases:
            lease["state"] = STATES[lease["state"]]

    def names(self, *states):
        return {x["account_name"] for x in self.leases if not states or x["state"] in states}

    def ids(self, *states):
        return {x["account_id"] for x in self.leases if x["account_id"] and x["state"] in states}


class Log:
    """The records, whose chain holds: each names the leaf before it, none is missing."""

    def __init__(self, lines):
        self.records, self.calls, self.outcomes = [], {}, {}
        leaf = bytes(32)
        for n, (sequence, line) in enumerate(lines, 1):
            text = line if isinstance(line, bytes) else line.encode()
            r = json.loads(text)
            assert sequence == r["seq"] == n, f"record {sequence} says {r['seq']} and is the {n}th"
            assert base64.b64decode(r["prev"]) == leaf, f"record {n} does not follow the one before"
            leaf = hashlib.sha256(b"\0" + text).digest()
            self.records.append(r)
            if r["kind"] == "call":
                assert r["call"] not in self.calls, f"record {n}: a call of that name was there"
                self.calls[r["call"]] = r
            if r["kind"] == "outcome":
                assert r["call"] in self.calls, f"record {n}: an outcome without its call"
                assert r["call"] not in self.outcomes, f"record {n}: a second outcome"
                self.outcomes[r["call"]] = r

    def kinds(self):
        counts = {}
        for r in self.records:
            counts[r["kind"]] = counts.get(r["kind"], 0) + 1
        return counts


def history(service):
    found = []
    while True:
        page = service.control(f"history?from={len(found)}")
        found += page["history"]
        if len(found) >= page["total"]:
            return found


class World:
    """What the service served and has. Taken before the store is read: the daemon goes
    on, and what it does in between is in the store first."""

    def __init__(self, service):
        self.served = [h for h in history(service) if h.get("user_agent", "").startswith("hsmint/")]
        projects = service.control("state")["projects"]
        self.accounts = [a for p in projects for a in p["service_accounts"]]


def every_call_was_intended(world, log):
    """Each of the daemon's requests has its record, and was sent once. How many there were."""
    intents = {r["signed"]["nonce"]: r for r in log.calls.values()}
    seen = set()
    for h in world.served:
        # A look whether the service is there at all, without a key, is no call.
        if h["method"] == "GET" and not h.get("key_id") and not h.get("signature_input"):
            continue
        assert h.get("signature_input"), f"{h} came without a signature"
        nonce = nonce_of(h["signature_input"])
        assert nonce in intents, f"{h} was served and is in no record"
        assert nonce not in seen, f"{h} was sent twice"
        seen.add(nonce)
        record = intents[nonce]
        assert record["method"] == h["method"] and h["path"] in record["signed"]["target_uri"]
        if h.get("name"):
            assert json.loads(record["body"])["name"] == h["name"]
    return len(seen)


def every_account_was_intended(world, store):
    """Alive or dead, each has a name that is a lease's. How many there were."""
    names = store.names()
    for account in world.accounts:
        assert account["name"] in names, f"account {account['name']} is nobody's"
    return len(world.accounts)


def command(daemon, *arguments):
    return subprocess.run(
        [program("hsmint"), "--socket", daemon.socket, *arguments], capture_output=True, text=True, timeout=120
    )


def verify(daemon, place):
    """`hsmint audit export` and `verify`, with the log's key: what verify says of the whole."""
    copy, key = place / "copy", place / "log-key"
    r = command(daemon, "audit", "key")
    assert r.returncode == 0, r.stdout + r.stderr
    key.write_text(r.stdout)
    r = command(daemon, "audit", "export", copy)
    assert r.returncode == 0, r.stdout + r.stderr
    r = command(daemon, "audit", "verify", copy, "--key", key)
    assert r.returncode == 0, r.stdout + r.stderr
    return "\n".join(line for line in r.stdout.splitlines() if not line.startswith("open"))


def reconcile(daemon, seconds=120):
    """The report of a run that came to its end."""

    def ask():
        try:
            return c.change("Reconcile")["report"]
        except Error as e:
            return e.name == "Exists"  # one is under way

    def ended():
        report = c.call("ReconcileStatus")["report"]
        return report["state"] == "done" and report

    with daemon.attached() as c:
        wait_for(ask, seconds, "reconcile to begin")
        wait_for(ended, seconds, "reconcile to end")
        # What was under way had begun before: once more.
        wait_for(ask, seconds, "reconcile to begin")
        return wait_for(ended, seconds, "reconcile to end")
