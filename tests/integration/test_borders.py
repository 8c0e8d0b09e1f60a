"""Who opens what, by strace: the module's process neither HSM nor network nor
store; the daemon neither network nor HSM; the keeper no store."""

import os
import re
import shutil
import subprocess

import pytest

from conftest import BUILD, wait_for

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

FILES_AND_SOCKETS = "trace=%file,socket,connect,execve"


def opened(trace):
    """Paths that were opened (not only looked for) in a trace's text."""
    return [m[1] for m in re.finditer(r'open(?:at)?\([^"]*"([^"]+)".*\) = \d', trace)]


def networks(trace):
    return re.findall(r"socket\((AF_INET6?|AF_NETLINK)", trace)


def executed(trace):
    return [m[1] for m in re.finditer(r'execve\("([^"]+)".* = 0', trace)]


class Traced:
    """A daemon under strace; texts by program."""

    def __init__(self, daemon, place):
        self.daemon, self.prefix = daemon, place / "trace"
        self.prefix.mkdir()
        plain = daemon.command

        def command(*options):
            return ["strace", "-ff", "-qq", "-o", self.prefix / "t", "-e", FILES_AND_SOCKETS, *plain(*options)]

        daemon.command = command

    def split(self):
        """(daemon's text, keeper's text): threads belong to their process."""
        daemon, keeper, keeper_pids = "", "", set()
        texts = {int(p.name.rsplit(".", 1)[1]): p.read_text(errors="replace") for p in self.prefix.iterdir()}
        for pid, text in texts.items():
            if any(e.endswith("hsmint-keeper") for e in executed(text)):
                keeper_pids.add(pid)
        main = min(texts)
        for pid, text in texts.items():
            if pid in keeper_pids:
                keeper += text[text.rindex('hsmint-keeper"') :]
            elif pid == main or "libcurl" not in text:
                daemon += text
        return texts, daemon, keeper, keeper_pids


def thread_groups(root):
    """{tid: tgid} of a process and its children, while they live."""
    groups = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            for tid in os.listdir(f"/proc/{entry}/task"):
                groups[int(tid)] = int(entry)
        except OSError:
            continue
    return groups


def test_daemon_and_keeper(daemon_stopped, place):
    traced = Traced(daemon_stopped, place)
    daemon_stopped.start()
    daemon_stopped.prepare()
    with daemon_stopped.attached() as c:
        reply = c.change("Mint", role="my-app")
        assert reply.secret
        c.change("Revoke", lease_id=reply["lease"]["lease_id"])
        groups = thread_groups(daemon_stopped.process.pid)
        comm = {tgid: open(f"/proc/{tgid}/comm").read().strip() for tgid in set(groups.values()) if os.path.exists(f"/proc/{tgid}")}
    texts, _, _, keeper_pids = traced.split()
    daemon = keeper = ""
    for pid, text in texts.items():
        name = comm.get(groups.get(pid, pid), "hsmintd")
        if pid in keeper_pids:  # before its execve it is the daemon's fork
            at = text.rindex("hsmint-keeper")
            daemon, keeper = daemon + text[:at], keeper + text[at:]
        elif name.startswith("hsmint-keeper"):
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
    module = BUILD / ".libs" / "hsmint-pkcs11.so"
    if not module.exists() or not shutil.which("pkcs11-tool"):
        pytest.skip("no module, or opensc is not installed")
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
