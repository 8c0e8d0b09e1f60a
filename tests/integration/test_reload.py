"""Reload and restart under load: nothing that was begun is lost by them."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import pytest

from conftest import Daemon, not_on_a_busy_machine, not_sanitized, program, wait_for

CALLERS = 4  # of each kind
RELOADS, RESTART_EACH = 24, 6


class Activated(Daemon):
    """As under systemd: the listening socket stays while daemons come and go."""

    def __init__(self, *place):
        super().__init__(*place)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket))
        self.listener.listen(1024)

    def spawn(self, *options, **popen):
        self.write_config()
        script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 0</dev/null'
        command = ["sh", "-c", script, *map(str, self.command(*options))]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(command, stdin=self.listener.fileno(), stdout=log, stderr=log)
        return self.process


@pytest.fixture
def ready(place, token, service):
    d = Activated(place, token, service)
    yield d.start().prepare()
    d.end()
    d.listener.close()


class Load:
    """Callers that mint until told to stop, by the module and by the command line."""

    def __init__(self, daemon):
        self.daemon, self.stop = daemon, threading.Event()
        self.environment = {**os.environ, "HSMINT_SOCKET": str(daemon.socket)}
        self.minted, self.failed = [], []  # list.append is atomic
        self.by_command = 0
        self.by_name = 0
        with daemon.attached() as c:
            self.secret_id = c.change("CreateLogin", name="batch", fields={"uses": 1}).secret.decode()
        kinds = [self.module, self.command] * CALLERS + [self.named]
        self.threads = [threading.Thread(target=self.call, args=(kind,)) for kind in kinds]

    def run(self, how, *argv):
        r = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60)
        if r.returncode:
            self.failed.append(f"{how}: {r.returncode}: {r.stderr or r.stdout}")
            return None
        return r.stdout

    def call(self, kind):
        try:
            kind()
        except Exception as e:
            self.failed.append(f"{kind.__name__}: {type(e).__name__}: {e}")

    def command(self):
        while not self.stop.is_set():
            text = self.run("hsmint", program("hsmint"), "mint", "my-app", "--json")
            if text:
                self.minted.append(json.loads(text)["lease_id"])
                self.by_command += 1

    def module(self):
        """Each run mints by C_GenerateKey and keeps the object."""
        module = program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")
        while not self.stop.is_set():
            text = self.run(
                "module",
                *("pkcs11-tool", "--module", module, "--login", "--pin", self.daemon.token.pin),
                *("--keygen", "--key-type", "GENERIC:32", "--label", "my-app", "--extractable"),
            )
            if text:
                found = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.strip().startswith("ID:")]
                self.minted.append(bytes.fromhex(found[0]).decode() if found else "")

    def named(self):
        """One program that logs in by name once, with a secret id for one login."""
        module = program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")
        path = program("tests", "integration", "p11client")
        with subprocess.Popen(
            [path, module], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as p:

            def ok(line):
                p.stdin.write(line + "\n")
                answer = p.stdout.readline().split()
                if answer[:1] == ["ok"]:
                    return answer[-1]
                p.stdin.write("why\n")
                self.failed.append(f"named: {line.split()[0]}: {answer} {p.stdout.readline()}")
                return None

            ok("open")
            ok(f"loginuser batch {self.secret_id}")
            while not self.stop.is_set():
                handle = ok("mint my-app token 0")
                lease = handle and ok(f"id {handle}")
                if lease:
                    self.minted.append(lease)
                    self.by_name += 1

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in self.threads:
            t.join()


def leases(daemon):
    with sqlite3.connect(f"file:{daemon.state}/store.db?mode=ro", uri=True) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(lease)")]
        rows = [dict(zip(columns, row)) for row in db.execute("SELECT * FROM lease")]
    return {row["id"]: row for row in rows}


def test_reload_and_restart_under_load(ready):
    not_sanitized("a sanitized daemon on a busy machine starts more slowly than callers wait")
    not_on_a_busy_machine("a daemon starts more slowly than callers wait")
    restarts = []
    with Load(ready) as load:
        wait_for(lambda: len(load.minted) >= CALLERS, 60, "the first keys")
        for reload in range(1, RELOADS + 1):
            ready.process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            if reload % RESTART_EACH == 0 and reload < RELOADS:
                began, before, named = time.monotonic(), len(load.minted), load.by_name
                assert ready.stop() == 0
                ready.start()
                restarts.append(time.monotonic() - began)
                wait_for(lambda: len(load.minted) > before, 30, "keys after a restart")
                wait_for(lambda: load.by_name > named or load.failed, 30, "a key by name after a restart")
    assert len(restarts) == 3
    assert "cannot accept" not in ready.log(), "one that left listened on"
    assert not load.failed, "\n".join(load.failed[:5])
    minted = [m for m in load.minted if m]
    assert 0 < load.by_command < len(minted)
    assert load.by_name > len(restarts)
    print(f"{len(load.minted)} keys, {load.by_name} of them by name, {RELOADS} reloads, restarts of {', '.join(f'{s:.2f} s' for s in restarts)}")
    # Every key that was given is a lease of the store, and each once.
    assert len(set(minted)) == len(minted) == len(load.minted)
    stored = leases(ready)
    assert not [m for m in minted if m not in stored]
    assert sum(row["owner"] == "login:batch" for row in stored.values()) >= load.by_name
    # What the service has, the store has: nothing was made twice or forgotten.
    with ready.attached() as c:
        wait_for(
            lambda: ready.service.alive()
            == sum(c.call("Status")["status"]["leases"][s] for s in ("active", "revoking")),
            30,
            "service and store to agree",
        )


def test_reload_ends_no_session(ready):
    """A lease that is bound to a session lives as long as that, whatever is reloaded."""
    with ready.attached() as c:
        bound = c.change("Mint", role="my-app", bound=True)["lease"]["lease_id"]
        for _ in range(10):
            ready.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
            assert c.call("GetLease", lease_id=bound)["lease"]["state"] == "active"
    wait_for(lambda: ready.service.alive() == 0, 15, "the session's lease to end with it")
