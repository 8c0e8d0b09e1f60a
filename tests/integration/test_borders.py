"""Who opens what, by strace: the module's process neither HSM nor network nor
store; the daemon neither network nor HSM; the keeper no store."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from conftest import not_sanitized, only_root_looks, program

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

FILES_AND_SOCKETS = "trace=%file,socket,connect,execve"


@pytest.fixture(autouse=True)
def plain():
    not_sanitized("a sanitizer finds no leaks under strace")


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


def test_daemon_and_keeper(daemon_stopped, place):
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
    assert [p for p in opened(keeper) if p.startswith(store)] == [], "the keeper opened the store"


def test_module(ready, place):
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
