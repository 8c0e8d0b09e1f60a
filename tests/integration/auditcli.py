"""For the tests of `hsmint audit`: the command without a daemon, logs that are made up, copies of them."""

import json
import os
import re
import shutil
import subprocess

import pytest

import auditlog
from auditlog import Log
from conftest import SOURCE, program

OWNER = {"owner": "user:1000", "uid": 1000, "exe": "/usr/bin/app", "unit": "app.service"}


def hsmint(*words, status=0, stdin=None, env=None):
    environment = {"PATH": os.environ["PATH"], "HSMINT_SOCKET": "/nonexistent/socket", **(env or {})}
    r = subprocess.run([program("hsmint"), *map(str, words)], env=environment, input=stdin, capture_output=True, timeout=60)
    assert r.returncode == status, (r.returncode, r.stdout[-4000:], r.stderr[-4000:])
    return (r.stdout if status in (0, 1) and r.stdout else r.stderr).decode()


def verdict(path, *words, status=0):
    v = json.loads(hsmint("audit", "verify", path, "--json", *words, status=status))
    assert v["verdict"] == ("faults" if status else "holds") and bool(v["faults"]) == bool(status), v
    return v


def lease(log, n, ttl=3600, life=3000, role="my-app", actor=OWNER, max_ttl=7200, dead=True, **mint):
    """A key's whole life: mint, release, revoke, dead, with the two calls."""
    id, begin = f"lease{n:04}", log.ms
    log.call(f"c{n}a", lease=id, role=role, org="default", actor=actor)
    log.outcome(f"c{n}a", lease=id, role=role, org="default")
    at = {"actor": actor, "org": "default", "role": role, "lease": id}
    own = {"account": f"hsmint-{n}", "account_id": f"sa_{n}", "key_id": f"key_{n}", "key_hmac": "00" * 32}
    expires = auditlog.time_text(log.ms + 1000 + ttl * 1000)
    minted = log.ms + 1000
    log.add("mint", **at, **own, ttl=ttl, max_ttl=max_ttl, expires=expires, bound=False, reuse=False, **mint)
    log.add("release", **at)
    if dead:
        log.add("revoke", **at, reason="end", at_ms=minted + life * 1000 - 1000)
        log.call(f"c{n}b", "DELETE", f"/v1/organization/projects/p/service_accounts/sa_{n}", "", lease=id, role=role, org="default")
        log.outcome(f"c{n}b", lease=id, role=role, org="default")
        log.add("dead", org="default", role=role, lease=id, at_ms=minted + life * 1000)
        log.ms = max(log.ms, begin)
    return id


def a_log(records=40):
    log = Log()
    n = 0
    while len(log.lines) + 8 <= records:
        lease(log, n)
        n += 1
    while len(log.lines) < records:
        log.add("policy", actor=OWNER, name="p", action="set")
    return log


@pytest.fixture(params=["lines", "tiles"])
def write(request, tmp_path):
    """write(log, checkpoint=None): the copy's path."""

    def one(log, checkpoint=None):
        if request.param == "lines":
            return log.write_lines(tmp_path / "log.jsonl", checkpoint)
        (tmp_path / "log").mkdir(exist_ok=True)
        return log.write_tiles(tmp_path / "log", checkpoint)

    one.tiles = request.param == "tiles"
    return one


def names(v, what, seq):
    found = [(f["what"], f.get("seq")) for f in v["findings"]]
    assert (what, seq) in found, found


def tampered(write, change):
    """The path of a copy whose records alone were changed."""
    log = a_log()
    checkpoint, path = log.checkpoint(), write(log)
    change(log.lines)
    if write.tiles:
        (path / auditlog.tile_name("entries", 0, 40)).write_bytes(auditlog.entries(log.lines))
    else:
        write(log, checkpoint)
    return path


def report(path, *words, status=0):
    return json.loads(hsmint("audit", "report", path, "--json", *words, status=status))


def all_kinds():
    """Of the program's table, but those with members that have to be there."""
    kinds = re.findall(r'\[RECORD_[A-Z_]+\] = "([a-z-]+)"', (SOURCE / "module/audit/record.c").read_text())
    assert len(kinds) > 25
    return [k for k in kinds if k not in ("keys", "call", "outcome")]


@pytest.fixture(scope="module")
def independent(tmp_path_factory):
    """tests/independent, with the Go project's packages of these formats: run(what, path, *vkeys)."""
    go = shutil.which("go") or pytest.skip("go is not installed")
    built = tmp_path_factory.mktemp("go") / "independent"
    r = subprocess.run([go, "build", "-o", built, "."], cwd=SOURCE / "tests/independent", capture_output=True, text=True, timeout=300)
    if r.returncode:
        pytest.skip("golang.org/x/mod is not to be had: " + r.stderr.strip().splitlines()[-1])

    def run(what, path, *keys, status=0):
        r = subprocess.run([built, what, path, *(k.vkey for k in keys)], capture_output=True, timeout=60)
        assert r.returncode == status, r.stderr.decode()
        return r.stdout.removesuffix(b"\n")

    return run


class Vkey:
    def __init__(self, vkey):
        self.vkey = vkey
