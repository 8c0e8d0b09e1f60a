"""What is left in memory, files and logs: no admin key, no minted key."""

import base64
import ctypes
import os
import pathlib
import platform
import re
import subprocess
import sys
import threading
import time

import pytest

from conftest import BUILD, PROJECT, not_sanitized, only_root_looks, program, wait_for
from varlink import Error

WINDOW = 20  # bytes of a key in a row that count as a piece of it


def regions(pid):
    """(start, bytes) of each readable mapping."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, mode = line.split()[:2]
            if not mode.startswith("r") or line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            try:
                mem.seek(start)
                yield line, mem.read(end - start)
            except OSError:
                continue


PTRACE_ATTACH, PTRACE_DETACH, PTRACE_GETREGSET = 16, 17, 0x4204
NT_X86_XSTATE, WALL = 0x202, 0x40000000


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def registers(pid):
    """(name, bytes) of each thread's vector registers (XSAVE area)."""
    if platform.machine() != "x86_64":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        if libc.ptrace(PTRACE_ATTACH, tid, None, None) != 0:
            continue
        os.waitpid(tid, WALL)
        area = ctypes.create_string_buffer(16384)
        iov = Iovec(ctypes.addressof(area), len(area))
        if libc.ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, ctypes.byref(iov)) == 0:
            yield f"registers of {tid}", area.raw[: iov.len]
        libc.ptrace(PTRACE_DETACH, tid, None, None)


def find_in_registers(pid, keys):
    """A register of 16 bytes holds less than a piece: any 16 in a row count."""
    wanted = {k.encode()[i : i + 16] for k in keys for i in range(len("sk-admin-"), len(k) - 15)}
    found, seen = [], 0
    for name, data in registers(pid):
        seen += 1
        found += [name for at in range(0, len(data) - 15, 8) if data[at : at + 16] in wanted]
    assert seen or platform.machine() != "x86_64", "no registers could be read"
    return found


TEXT = rb"[A-Za-z0-9_+/=-]"
PLAIN = re.compile(TEXT + rb"{%d,}" % WINDOW)
WIDE = re.compile(rb"(?:" + TEXT + rb"\0){%d,}" % WINDOW)


def windows(text):
    return {text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)}


def forms(keys):
    """Every WINDOW bytes in a row of the keys, of their hex and their base64."""
    wanted = set()
    for key in (k.encode() for k in keys):
        wanted |= windows(key) | windows(key.hex().encode())
        for shift in range(3):
            wanted |= windows(base64.b64encode(key[shift:])[:-4])
    return wanted


def matches(wanted, data):
    """Pieces of `wanted` in data, also as UTF-16."""
    runs = [m[0] for m in PLAIN.finditer(data)] + [m[0][::2] for m in WIDE.finditer(data)]
    return {run[i : i + WINDOW] for run in runs for i in range(len(run) - WINDOW + 1)} & wanted


def find(pid, keys):
    """Where a piece of a key is, as text."""
    wanted = forms(keys)
    return [f"{line.strip()}: {piece[:6]!r}…" for line, data in regions(pid) for piece in matches(wanted, data)]


def stopped(pid):
    """Nothing moves while we look."""

    class Stop:
        def __enter__(self):
            os.kill(pid, 19)
            wait_for(lambda: pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")

        def __exit__(self, *_):
            os.kill(pid, 18)

    return Stop()


@pytest.fixture
def readable():
    only_root_looks()
    not_sanitized("a sanitizer keeps what was freed")


def test_the_search_finds_what_is_there(readable):
    key = "sk-control-" + os.urandom(60).hex()
    code = "import sys, time; k = sys.stdin.readline(); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as child:
        child.stdin.write(key + "\n")
        child.stdin.flush()
        child.stdout.readline()
        assert find(child.pid, [key])
        assert not find(child.pid, ["sk-control-" + os.urandom(60).hex()])
        child.kill()


def test_nothing_is_left(readable, ready, service):
    keys = []
    with ready.attached() as c:
        c.change("SetRole", name="kept", fields={"project_id": PROJECT, "keep_value": True})
        for i in range(100):
            reply = c.change("Mint", role="kept" if i % 10 == 0 else "my-app")
            keys.append(reply.secret.decode())
            if i % 3 == 0:
                c.change("Renew", lease_id=reply["lease"]["lease_id"], ttl=7200)
            if i % 10 == 0:
                assert c.call("ReadKey", lease_id=reply["lease"]["lease_id"]).secret.decode() == keys[-1]
            if i % 2:
                c.change("Revoke", lease_id=reply["lease"]["lease_id"])
        for fault in ({"kind": "status", "status": 401}, {"kind": "drop"}, {"kind": "truncate"}, {"kind": "oversize"}):
            service.fault(method="POST", path="*/service_accounts", **fault)
            with pytest.raises(Error):
                c.change("Mint", role="my-app")
        for bad in ({"role": "none"}, {"role": "my-app", "ttl": 10**9}):
            with pytest.raises(Error):
                c.change("Mint", **bad)
        time.sleep(1)
        keeper = ready.keeper()
        with stopped(ready.process.pid), stopped(keeper):
            assert find(ready.process.pid, [service.admin_key, *keys]) == []
            assert find(keeper, [service.admin_key, *keys]) == []

        for pid in (ready.process.pid, keeper):
            assert find_in_registers(pid, [service.admin_key, *keys]) == []

    for path in [*ready.state.rglob("*"), *ready.token.directory.rglob("*"), ready.log_file, ready.config]:
        if path.is_file():
            assert not matches(forms([service.admin_key, *keys]), path.read_bytes()), path
            assert ready.token.pin.encode() + b"\n" not in path.read_bytes(), path
    assert not list(ready.state.rglob("core*"))


def test_the_keeper_has_it_during_a_call(readable, ready, service):
    """Positive control; and even then the daemon has not."""
    service.fault(method="POST", path="*/service_accounts", kind="hang", ms=4000)
    keeper = ready.keeper()

    def caller():
        with ready.attached() as c:
            try:
                c.change("Mint", role="my-app")
            except Error:
                pass

    t = threading.Thread(target=caller)
    t.start()
    try:
        wait_for(lambda: find(keeper, [service.admin_key]), 3, "the key in the keeper during a call")
        assert find(ready.process.pid, [service.admin_key]) == []
    finally:
        t.join(60)


def test_not_dumpable(ready):
    """Same-user readers are kept out, and no core is written."""
    for pid in (ready.process.pid, ready.keeper()):
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0", limits)
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status


def test_environment_has_no_effect(daemon_stopped, service, place):
    """SSLKEYLOGFILE, proxies and OPENSSL_CONF of the caller reach nobody."""
    keylog, conf = place / "keylog", place / "openssl.cnf"
    conf.write_text(f"openssl_conf = x\n[x]\nengines = y\n[y]\nz = w\n[w]\ndynamic_path = {place}/evil.so\ninit = 1\n")
    daemon_stopped.start(
        env={
            "SSLKEYLOGFILE": str(keylog),
            "https_proxy": "http://127.0.0.1:1",
            "HTTPS_PROXY": "http://127.0.0.1:1",
            "ALL_PROXY": "http://127.0.0.1:1",
            "OPENSSL_CONF": str(conf),
        }
    )
    daemon_stopped.prepare()
    with daemon_stopped.attached() as c:
        assert c.change("Mint", role="my-app").secret
    assert not keylog.exists()
    for pid in (daemon_stopped.process.pid, daemon_stopped.keeper()):
        assert pid
        assert os.geteuid() != 0 or pathlib.Path(f"/proc/{pid}/maps").read_text().count("evil.so") == 0
