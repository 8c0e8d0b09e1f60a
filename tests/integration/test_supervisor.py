"""The daemon under a service manager: told it is ready, watched, reloaded, and
ended where a new start would not help. tests/boot does it with systemd itself."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from conftest import program, wait_for
from varlink import Error


class Manager:
    """A notify socket, and what came in on it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path)}

    def next(self, seconds=15):
        self.socket.settimeout(seconds)
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def until(self, key, seconds=15):
        """The next message that has this key."""
        end = time.monotonic() + seconds
        while True:
            message = self.next(max(0.01, end - time.monotonic()))
            if key in message:
                return message

    def count(self, key, seconds):
        n, end = 0, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                n += key in self.next(left)
            except TimeoutError:
                break
        return n


@pytest.fixture
def manager(place):
    m = Manager(place / "notify")
    yield m
    m.socket.close()


def test_ready_reloading_stopping(bare, manager):
    bare.spawn(env=manager.environment)
    ready = manager.until("READY")
    assert ready["READY"] == "1" and "init" in ready["STATUS"]  # no keys on the HSM yet
    with bare.attached() as c:
        c.change("Init")
    assert manager.until("STATUS")["STATUS"] == "Serving"
    with bare.attached() as c:
        c.call("Lock")
        assert "Locked" in manager.until("STATUS")["STATUS"]
        c.call("Login")
    before = time.monotonic_ns() // 1000
    bare.process.send_signal(signal.SIGHUP)
    message = manager.until("RELOADING")
    assert before - 1000 <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert manager.until("READY")["STATUS"] == "Serving"
    bare.process.terminate()
    assert manager.until("STOPPING")["STOPPING"] == "1"
    assert bare.process.wait(10) == 0


def test_abstract_notify_socket(bare):
    name = f"hsmint-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind("\0" + name)
        s.settimeout(15)
        bare.spawn(env={"NOTIFY_SOCKET": "@" + name})
        assert s.recv(4096).startswith(b"READY=1\n")


@pytest.mark.parametrize("path", ["", "relative", "@", "/" + "x" * 200, "/nowhere/notify"])
def test_odd_notify_sockets(bare, path):
    bare.start(env={"NOTIFY_SOCKET": path})
    assert bare.stop() == 0


def test_watchdog_is_fed(bare, manager):
    bare.spawn(env={**manager.environment, "WATCHDOG_USEC": "400000"})
    manager.until("READY")
    n = manager.count("WATCHDOG", 2)
    assert 8 <= n <= 11, n  # each 200 ms


def test_a_stopped_daemon_feeds_no_watchdog(bare, manager):
    bare.spawn(env={**manager.environment, "WATCHDOG_USEC": "400000"})
    manager.until("READY")
    bare.process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    manager.count("WATCHDOG", 0.1)  # what was underway
    assert manager.count("WATCHDOG", 1) == 0
    bare.process.send_signal(signal.SIGCONT)
    assert manager.count("WATCHDOG", 1) >= 3


@pytest.mark.parametrize(
    "environment",
    [{"WATCHDOG_USEC": usec} for usec in ("0", "-1", "x", "", "99999999999999999999999")]
    + [{"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}],
    ids=lambda e: "-".join(e.values()) or "empty",
)
def test_watchdogs_that_are_none(bare, manager, environment):
    bare.spawn(env={**manager.environment, **environment})
    manager.until("READY")
    assert manager.count("WATCHDOG", 0.5) == 0


def test_watchdog_names_us(bare, manager):
    bare.write_config()
    command = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$0" "$@"', *map(str, bare.command())]
    with open(bare.log_file, "ab") as log:
        bare.process = subprocess.Popen(
            command, stderr=log, env={**os.environ, **manager.environment, "WATCHDOG_USEC": "200000"}
        )
    manager.until("READY")
    assert manager.count("WATCHDOG", 1) >= 5


# ---- sockets that are handed over ----


def with_descriptor(bare, fd, count="1", pid="$$"):
    """Start it with `fd` as descriptor 3: (exit status or None while it runs, its log)."""
    bare.write_config()
    script = f'LISTEN_PID={pid} exec "$0" "$@" 3<&0 0</dev/null'
    command = ["sh", "-c", script, *map(str, bare.command())]
    with open(bare.log_file, "ab") as log:
        bare.process = subprocess.Popen(command, stdin=fd, stderr=log, env={**os.environ, "LISTEN_FDS": count})
    try:
        return bare.process.wait(1.5)
    except subprocess.TimeoutExpired:
        return None


@pytest.mark.parametrize("count", ["-1", "5", "2", "99999999999999999999", "1x", "0x1", "", " 1", "1.0"])
def test_hostile_listen_fds(bare, count):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(bare.socket))
        s.listen()
        assert with_descriptor(bare, s.fileno(), count) == 1, count
    assert "LISTEN_FDS" in bare.log() or "descriptor 4" in bare.log()


@pytest.mark.parametrize("kind", ["file", "tcp", "datagram", "not-listening", "seqpacket", "pipe"])
def test_what_is_no_listening_stream(bare, kind):
    path = str(bare.socket)
    if kind == "pipe":
        r, w = os.pipe()
        assert with_descriptor(bare, r) == 1
        os.close(r), os.close(w)
    elif kind == "file":
        with open("/dev/null") as f:
            assert with_descriptor(bare, f.fileno()) == 1
    else:
        family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
        types = {"datagram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}
        with socket.socket(family, types.get(kind, socket.SOCK_STREAM)) as s:
            s.bind(("127.0.0.1", 0) if kind == "tcp" else path)
            if kind in ("tcp", "seqpacket"):
                s.listen()
            assert with_descriptor(bare, s.fileno()) == 1
    assert "descriptor 3 from systemd is no listening" in bare.log()


def test_listen_fds_of_another_process(bare):
    """Not for us: it makes its own socket, and does not keep theirs."""
    r, w = os.pipe()
    assert with_descriptor(bare, w, pid="1") is None
    os.close(w)
    wait_for(bare.answers, 15)
    assert os.read(r, 1) == b""
    os.close(r)


def test_systemd_socket_activate(bare):
    if not shutil.which("systemd-socket-activate"):
        pytest.skip("systemd-socket-activate is not installed")
    bare.write_config()
    with open(bare.log_file, "ab") as log:
        bare.process = subprocess.Popen(
            ["systemd-socket-activate", "-l", bare.socket, *bare.command()], stderr=log, stdin=subprocess.DEVNULL
        )
    wait_for(bare.socket.exists)
    assert "ready" not in bare.log()
    wait_for(bare.answers, 15)
    assert "socket from systemd" in bare.log()


# ---- reload ----


def hangup(daemon, times=1):
    """SIGHUP, and what the log says of it."""
    before = len(daemon.log())
    daemon.process.send_signal(signal.SIGHUP)
    return wait_for(lambda: "reload: " in daemon.log()[before:] and daemon.log()[before:], what="a reload")


def test_reload_takes_what_may_change(bare):
    bare.start()
    assert "says what it said" in hangup(bare)
    bare.settings["daemon"] |= {"max_connections": 2, "log_level": "info", "keeper_threads": 3}
    bare.settings["hsm.env"]["NEW"] = "value"
    bare.write_config()
    said = hangup(bare)
    wait_for(lambda: "[hsm.env] has changed" in bare.log())
    said = bare.log()
    assert "[daemon] max_connections is taken" in said and "[daemon] log_level is taken" in said
    assert "[daemon] keeper_threads has changed, which needs a restart" in said
    assert "value" not in said
    held = [bare.attached() for _ in range(2)]
    with bare.connect() as c, pytest.raises(Error) as e:
        c.attach()
    assert e.value.name == "Limit"
    for c in held:
        c.close()


def test_log_moves_while_lines_are_written(bare):
    bare.start()
    with bare.attached() as c:
        for level in ("debug", "error", "debug", "warning", "debug"):
            bare.settings["daemon"]["log_level"] = level
            bare.write_config()
            bare.process.send_signal(signal.SIGHUP)
            for _ in range(20):
                c.call("Slots")
    assert bare.answers()


@pytest.mark.parametrize(
    "text", ["[daemon]\nmode = nonsense\n", "[nosuch]\n", "\0", "[daemon]\nmode = user\n", None], ids=range(5)
)
def test_reload_of_nonsense_changes_nothing(bare, manager, text):
    """Broken, of another HSM (none), or gone."""
    bare.spawn(env=manager.environment)
    manager.until("READY")
    if text is None:
        bare.config.unlink()
    else:
        bare.config.write_text(text)
    assert "the settings stay as they were" in hangup(bare)
    assert "reload failed" in manager.until("READY")["STATUS"]
    assert bare.answers()
    bare.write_config()
    hangup(bare)
    assert "reload failed" not in manager.until("READY")["STATUS"]


def test_reload_does_not_change_the_mode(bare):
    bare.start()
    bare.settings["daemon"]["mode"] = "system"
    bare.write_config()
    assert "[daemon] mode has changed, which needs a restart" in hangup(bare)
    with bare.connect() as c:
        assert c.attach()["mode"] == "user"


# ---- a PIN that must not be tried ----


@pytest.fixture
def locked(bare):
    """System mode with an HSM that says of its PIN what the test lets it say."""
    library = program("tests", "integration", ".libs", "lockedhsm.so")
    says, logins = bare.place / "says", bare.place / "logins"
    bare.settings["hsm.env"] |= {"HSM_BEHIND": bare.token.module, "HSM_SAYS": says, "HSM_LOGINS": logins}
    bare.settings["hsm"]["module"] = library
    bare.settings["daemon"]["mode"] = "system"
    bare.place.chmod(0o755)
    bare.run.chmod(0o755)
    bare.says = lambda word: says.write_text(word)
    bare.logins = lambda: len(logins.read_bytes()) if logins.exists() else 0
    return bare


@pytest.mark.parametrize("word, text", [("locked", "SO PIN"), ("low", "HSM's own tool"), ("final", "HSM's own tool")])
def test_a_pin_that_must_not_be_tried_is_an_exit(locked, word, text):
    locked.says(word)
    for _ in range(3):
        code, said = locked.fails("--system")
        assert code == 3, said
        assert text in said
    assert locked.logins() == 0
    locked.says("")
    locked.start("--system")
    assert locked.logins() > 0


def test_callers_that_wait_hear_why(locked):
    """Else their connections would have systemd start the daemon again at once."""
    locked.says("locked")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(locked.socket))
        s.listen()
        callers = [locked.connect() for _ in range(3)]
        for c in callers:
            c.send({"method": "org.varlink.service.GetInfo"})
        locked.write_config()
        script = 'LISTEN_PID=$$ exec "$0" "$@" 3<&0 0</dev/null'
        command = ["sh", "-c", script, *map(str, locked.command("--system"))]
        with open(locked.log_file, "ab") as log:
            locked.process = subprocess.Popen(
                command, stdin=s.fileno(), stderr=log, env={**os.environ, "LISTEN_FDS": "1"}
            )
        assert locked.process.wait(15) == 3
        for c in callers:
            message, _ = c.receive()
            assert message["error"] == "org.hsmint.PinLocked", message
        s.setblocking(False)
        with pytest.raises(BlockingIOError):
            s.accept()


def test_a_wrong_pin_is_no_exit(locked):
    """The keeper remembers it and tries it no more: that is safer than starting again."""
    locked.says("")
    locked.pin_file.write_text("000000")
    locked.start("--system")
    time.sleep(2.5)
    assert locked.logins() == 1
    assert locked.stop() == 0
