"""The seccomp filters: the table against spec/SECCOMP.md, each call that it has
not against the filter, and both filters in the processes that they are for."""

import errno
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest

from conftest import SOURCE, Daemon, Service, not_sanitized, program
from inject import Inside

ROLES = ("daemon", "parent", "keeper")

# numbers of x86-64
FORBIDDEN = {
    "ptrace": 101,
    "execve": 59,
    "execveat": 322,
    "fork": 57,
    "vfork": 58,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "pidfd_getfd": 438,
    "kcmp": 312,
    "bpf": 321,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "chroot": 161,
    "unshare": 272,
    "setns": 308,
    "keyctl": 250,
    "add_key": 248,
    "perf_event_open": 298,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "memfd_create": 319,
    "setuid": 105,
    "setresuid": 117,
    "setgroups": 116,
    "capset": 126,
    "personality": 135,
    "init_module": 175,
    "finit_module": 313,
    "kexec_load": 246,
    "reboot": 169,
    "settimeofday": 164,
    "clock_settime": 227,
    "open_by_handle_at": 304,
    "shmget": 29,
    "kill": 62,
    "seccomp": 317,
}


@pytest.fixture(autouse=True)
def plain():
    not_sanitized("a sanitizer makes calls of its own: there is no filter")


def syscalls(*arguments):
    r = subprocess.run([program("tests", "integration", "syscalls"), *arguments], capture_output=True, text=True, timeout=60)
    return r.returncode, r.stdout


def filters(pid):
    """Seccomp: of each thread; 2 is a filter."""
    modes = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/status") as status:
                modes.append(re.search(r"^Seccomp:\s*(\d)", status.read(), re.M)[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return modes


@pytest.mark.parametrize("role", ROLES)
def test_page_has_the_table(role):
    page = (SOURCE / "spec" / "SECCOMP.md").read_text()
    listed = re.search(rf"<!-- {role} -->\n\n(.*?)\n\n<!-- end -->", page, re.S)[1]
    status, text = syscalls("--list", role)
    assert status == 0
    assert listed == ", ".join(f"`{line}`" for line in text.splitlines()), f"syscalls --list {role} says otherwise"


@pytest.mark.parametrize("role", ROLES)
def test_refused(role):
    status, text = syscalls("--try", role)
    assert status == 0, text
    assert int(re.search(r"(\d+) unlisted calls were tried", text)[1]) > 150, text


@pytest.mark.parametrize("role", ("parent", "keeper"))
def test_the_test_can_fail(role):
    status, text = syscalls("--try", role, "shmget")
    assert status == 1 and "shmget" in text, text


def test_further_calls():
    assert syscalls("--more", "keeper", "shmget") == (0, "Invalid argument\n")
    assert syscalls("--more", "parent", "shmget") == (0, "Invalid argument\n")
    assert syscalls("--more", "daemon", "shmget") == (0, "Operation not permitted\n"), "not the daemon's business"
    status, text = syscalls("--more", "keeper", "no_such_call")
    assert status == 3 and "[hsm] syscalls" in text


def refused_inside(pid, but=()):
    with Inside(pid) as call:
        allowed = [n for n, number in FORBIDDEN.items() if n not in but and call(number) != errno.EPERM]
        assert allowed == []
        assert call(39) == 0, "getpid() does not work: nothing is shown"
        return call(41, 2, 1, 0) == 0  # socket(AF_INET, SOCK_STREAM, 0)


def test_inside_daemon_and_keeper(apart):
    """Really there: made in the two processes themselves."""
    assert set(filters(apart.process.pid)) == {"2"}
    assert set(filters(apart.keeper())) == {"2"}
    assert refused_inside(apart.process.pid) is False, "the daemon has a network"
    assert refused_inside(apart.keeper()) is True, "the keeper has none"
    lease = apart.attempt(lambda c: c.change("Mint", role="my-app")["lease"]["lease_id"])
    apart.attempt(lambda c: c.change("Revoke", lease_id=lease) and None)
    assert apart.service.alive() == 0


def test_inside_parent_and_child(ready):
    assert set(filters(ready.process.pid)) == {"2"}
    assert set(filters(ready.keeper())) == {"2"}
    with Inside(ready.keeper()) as call:
        assert [n for n, number in FORBIDDEN.items() if call(number) != errno.EPERM] == []
    refused_inside(ready.process.pid, but=("execve", "fork", "vfork", "kill", "seccomp"))


def test_switched_off(daemon_stopped):
    daemon_stopped.settings["daemon"]["seccomp"] = "no"
    daemon_stopped.start().prepare()
    assert set(filters(daemon_stopped.process.pid)) == {"0"}
    assert set(filters(daemon_stopped.keeper())) == {"0"}
    assert "no seccomp filter: the settings say seccomp = no" in daemon_stopped.log()


def test_audited(daemon_stopped):
    """seccomp = log refuses nothing, and the log says so."""
    daemon_stopped.settings["daemon"]["seccomp"] = "log"
    daemon_stopped.start().prepare()
    assert set(filters(daemon_stopped.process.pid)) == {"2"}
    assert "calls that would be refused are made" in daemon_stopped.log()
    with Inside(daemon_stopped.process.pid) as call:
        assert call(FORBIDDEN["shmget"], 0, 0, 0) == errno.EINVAL


def test_unknown_name_in_settings(apart_stopped):
    """A filter that cannot be made is no reason to go without."""
    apart_stopped.settings["hsm"]["syscalls"] = "shmget no_such_call"
    apart_stopped.start()
    text = apart_stopped.attempt(lambda c: c.change("Init") and None)
    assert "there is no system call no_such_call" in text, text
    apart_stopped.stop()
    del apart_stopped.settings["daemon"]["keeper_socket"]
    del apart_stopped.settings["hsm"]["keeper_state_dir"]
    status, text = apart_stopped.fails()
    assert status == 1 and "no_such_call" in text


NAME = "api.hsmint.test"
NAMESERVER = ("127.53.0.7", 53)


class Nameserver(threading.Thread):
    """Answers A with 127.0.0.1 and everything else with nothing."""

    def __init__(self):
        super().__init__(daemon=True)
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(NAMESERVER)
        self.start()

    def run(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(512)
            except OSError:
                return
            end = query.index(b"\0", 12) + 5
            question, kind = query[12:end], query[end - 4 : end - 2]
            self.asked.append(question)
            found = kind == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if found else b""
            self.socket.sendto(query[:2] + b"\x85\x80\0\1\0" + bytes([found]) + b"\0\0\0\0" + question + answer, peer)


def certificate(directory):
    """ca.pem, server.pem and server.key for NAME."""
    directory.mkdir(mode=0o700)

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl(*new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    names = ("-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    openssl(*new, "-subj", f"/CN={NAME}", *names, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem")


@pytest.fixture
def named_service(place):
    """The double under a name that only a name server of ours knows."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "openssl"))):
        pytest.skip("a resolver of one's own needs root, unshare and openssl")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    certificate(place / "double")
    (place / "resolv.conf").write_text(f"nameserver {NAMESERVER[0]}\noptions timeout:2\n")
    (place / "nsswitch.conf").write_text("hosts: files dns\npasswd: files\ngroup: files\n")
    nameserver = Nameserver()
    s = Service(place)
    s.url = s.url.replace("127.0.0.1", NAME)
    s.nameserver = nameserver
    yield s
    s.stop()
    nameserver.socket.close()


def test_resolver(place, token, named_service):
    """DNS, TLS by name, and all the rest, under the filter."""
    d = Daemon(place, token, named_service)
    d.settings["service"]["hosts"] = "*.hsmint.test"
    script = f"mount --bind {place}/resolv.conf /etc/resolv.conf && mount --bind {place}/nsswitch.conf /etc/nsswitch.conf"
    plain = d.command
    d.command = lambda *o: ["unshare", "-m", "sh", "-c", script + ' && exec "$@"', "sh", *plain(*o)]
    try:
        d.start().prepare()
        with d.attached() as c:
            c.change("Revoke", lease_id=c.change("Mint", role="my-app")["lease"]["lease_id"])
        assert set(filters(d.keeper())) == {"2"}
        assert any(b"hsmint" in q for q in named_service.nameserver.asked), "nobody asked the name server"
        assert named_service.control("counters")["accounts_alive"] == 0
    finally:
        d.end()
