"""Who opens what, by strace: the module's process neither HSM nor network nor
store; the daemon neither network nor HSM; the keeper no store. And who could:
what a uid of the keeper's own keeps the daemon's uid from, and the other way."""

import ctypes
import errno
import os
import re
import shutil
import signal
import subprocess

import pytest

from conftest import Apart, as_uid, not_sanitized, only_root_looks, program

strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

FILES_AND_SOCKETS = "trace=%file,socket,connect,execve"


def opened(trace):
    """Paths that were opened (not only looked for) in a trace's text."""
    return [m[1] for m in re.finditer(r'open(?:at)?\([^"]*"([^"]+)".*\) = \d', trace)]


def networks(trace):
    return re.findall(r"socket\((AF_INET6?|AF_NETLINK)", trace)


def executed(trace):
    return [m[1] for m in re.finditer(r'execve\("([^"]+)".* = 0', trace)]


def trace(daemon, folder):
    """Let the daemon start under strace, a file a thread in `folder`."""
    folder.mkdir()
    plain = daemon.command
    daemon.command = lambda *o: ["strace", "-ff", "-qq", "-o", folder / "t", "-e", FILES_AND_SOCKETS, *plain(*o)]


def traces(folder):
    """{thread id: text}"""
    return {int(p.name.rsplit(".", 1)[1]): p.read_text(errors="replace") for p in folder.iterdir()}


def names_of_threads():
    """{thread id: name of its process}"""
    names = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/comm") as comm:
                name = comm.read().strip()
            names.update({int(tid): name for tid in os.listdir(f"/proc/{entry}/task")})
        except OSError:
            continue
    return names


@strace
def test_daemon_and_keeper(daemon_stopped, place):
    not_sanitized("a sanitizer finds no leaks under strace")
    only_root_looks()  # strace of another's process sees addresses, no paths
    folder = place / "trace"
    trace(daemon_stopped, folder)
    daemon_stopped.start()
    daemon_stopped.prepare()
    with daemon_stopped.attached() as c:
        reply = c.change("Mint", role="my-app")
        assert reply.secret
        c.change("Revoke", lease_id=reply["lease"]["lease_id"])
        names = names_of_threads()
    texts = traces(folder)
    os.kill(min(texts), signal.SIGTERM)  # strace passes no signal on
    daemon_stopped.process.wait(30)

    daemon = keeper = ""
    for tid, text in texts.items():
        if any(e.endswith("hsmint-keeper") for e in executed(text)):
            at = text.rindex("hsmint-keeper")  # before, it is the daemon's fork
            daemon, keeper = daemon + text[:at], keeper + text[at:]
        elif names.get(tid, "").startswith("hsmint-keeper"):
            keeper += text
        else:
            daemon += text

    hsm = ("libsofthsm2", str(daemon_stopped.token.directory))
    store = str(daemon_stopped.state)
    # The traces show what they are asked about: each process does its own part.
    assert any(store in p for p in opened(daemon)), "the daemon's trace shows no store"
    assert any(hsm[0] in p for p in opened(keeper)), "the keeper's trace shows no HSM"
    assert networks(keeper), "the keeper's trace shows no network"

    assert networks(daemon) == [], "the daemon opened the network"
    assert [p for p in opened(daemon) if any(h in p for h in hsm)] == [], "the daemon opened the HSM"
    own = (f"{store}/keeper", f"{store}/keeper/ledger")
    assert [p for p in opened(keeper) if p.startswith(store) and p not in own] == [], "the keeper opened the store"


@strace
def test_module(ready, place):
    not_sanitized("a sanitizer finds no leaks under strace")
    module = program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")
    if not shutil.which("pkcs11-tool"):
        pytest.skip("opensc is not installed")
    out = place / "trace-module"
    subprocess.run(
        ["strace", "-f", "-qq", "-o", out, "-e", FILES_AND_SOCKETS, "pkcs11-tool", "--module", module]
        + ["--login", "--pin", ready.token.pin, "--keygen", "--key-type", "GENERIC:32", "--label", "my-app", "--extractable"],
        env={**os.environ, "HSMINT_SOCKET": str(ready.socket)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    text = out.read_text(errors="replace")
    assert "hsmint-pkcs11.so" in text and str(ready.socket) in text, "the trace shows nothing"
    assert networks(text) == []
    bad = ("softhsm", str(ready.state), str(ready.token.directory), "libcurl", "libsqlite3", str(ready.pin_file))
    assert [p for p in opened(text) if any(b in p for b in bad)] == []


def looks(path):
    """errno of reading a file or a directory; 0 where it can be read."""
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            with open(path, "rb", 0) as f:
                f.read(1)
        return 0
    except OSError as e:
        return e.errno


def reach(paths, pid):
    """{what: errno} of a process that reads these paths, and does to `pid` what one
    of the same uid may."""
    found = {str(p): looks(p) for p in paths}
    for name in ("mem", "environ", "maps", "fd", "auxv"):
        found[f"/proc/PID/{name}"] = looks(f"/proc/{pid}/{name}")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for name, request in (("attach", 16), ("seize", 0x4206)):
        done = libc.ptrace(request, pid, None, None)
        found[name] = ctypes.get_errno() if done < 0 else 0
    part = (ctypes.c_void_p * 2)(ctypes.cast(ctypes.create_string_buffer(8), ctypes.c_void_p), 8)
    done = libc.process_vm_readv(pid, part, 1, part, 1, 0)
    found["process_vm_readv"] = ctypes.get_errno() if done < 0 else 0
    try:
        os.kill(pid, 0)
        found["kill"] = 0
    except OSError as e:
        found["kill"] = e.errno
    return found


def not_refused(found):
    return {k: v for k, v in found.items() if v not in (errno.EACCES, errno.EPERM)}


def test_uid_of_the_daemon(apart):
    """PIN, HSM and the keeper's process are out of its reach."""
    token = [apart.token.config, apart.token.directory, *apart.token.directory.rglob("*")]
    hsm = [apart.pin_file, *token]
    assert len(hsm) > 4
    keeper = apart.keeper()
    assert not_refused(as_uid(Apart.DAEMON, lambda: reach(hsm, keeper))) == {}
    # The same look finds what it is for: the keeper's uid has PIN and HSM.
    assert as_uid(Apart.KEEPER, lambda: [looks(p) for p in hsm]) == [0] * len(hsm)
    # Nor can it change what both read.
    assert as_uid(Apart.DAEMON, lambda: os.access(apart.config, os.W_OK)) is False


def test_uid_of_the_keeper(apart):
    """The store and the daemon's process are out of its reach."""
    store = [apart.state, *apart.state.rglob("*"), apart.run, apart.socket]
    assert len(store) > 3
    daemon = apart.process.pid
    assert not_refused(as_uid(Apart.KEEPER, lambda: reach(store, daemon))) == {}
    assert as_uid(Apart.DAEMON, lambda: looks(apart.state)) == 0
    assert as_uid(Apart.KEEPER, lambda: os.access(apart.config, os.W_OK)) is False


def test_keeper_of_the_daemons_own(apart):
    """Code that runs as the daemon starts a keeper with settings of its own: it
    gets neither PIN nor token."""
    config = apart.state / "own.conf"
    config.write_text(apart.config.read_text().replace("hosts = 127.0.0.1", "hosts = evil.example"))
    config.chmod(0o600)
    apart.give(Apart.DAEMON, config)
    script = f"""
import fcntl, json, os, socket, struct
a, b = (socket.socket(fileno=fcntl.fcntl(s.detach(), fcntl.F_DUPFD_CLOEXEC, 10)) for s in socket.socketpair())
os.dup2(b.fileno(), 3)
if os.fork() == 0:
    os.execv({str(program("hsmint-keeper"))!r}, ["hsmint-keeper", "--config", {str(config)!r}, "--channels", "1"])
os.close(3); b.close()
head = json.dumps(dict(source="configured", force=True)).encode()
a.sendall(struct.pack("=IHHII", 0x686D4B31, 2, 0, len(head), 0) + head)
h = a.recv(16, socket.MSG_WAITALL)
print(a.recv(struct.unpack_from("=I", h, 8)[0], socket.MSG_WAITALL).decode())
"""
    r = subprocess.run(apart.under(Apart.DAEMON, "python3", "-c", script), capture_output=True, text=True, timeout=120)
    assert '"text"' in r.stdout and "HSM" in r.stdout, r  # no token, for it sees none
    # The same with the keeper's uid logs in: the question is a good one.
    apart.give(Apart.KEEPER, config)
    apart.state.chmod(0o711)
    r = subprocess.run(apart.under(Apart.KEEPER, "python3", "-c", script), capture_output=True, text=True, timeout=120)
    assert '"checked"' in r.stdout, r


def test_settings_of_the_daemons_own(apart):
    """The keeper takes no word from a file that the daemon may write."""
    apart.give(Apart.DAEMON, apart.config)
    os.kill(apart.keeper(), signal.SIGKILL)
    text = apart.attempt(lambda c: c.change("Mint", role="my-app") and None)
    assert "does not serve" in text and "hsmint.conf" in text, text
    assert apart.keeper() is None
