"""The daemon as a process: start, environment, locks, modes, end."""

import os
import pathlib
import signal
import socket
import sqlite3
import stat
import subprocess
import time

import pytest

from conftest import as_uid, patience, program, wait_for
from varlink import Connection, Error, request_id


def proc(pid, name):
    return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()


def status_field(pid, name):
    for line in proc(pid, "status").decode().splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    return None


def test_usage(bare):
    for options, text in ((["--nonsense"], "unrecognized"), (["--user", "--system"], "either"), (["here"], "no arguments")):
        r = subprocess.run([program("hsmintd"), *options], capture_output=True, text=True)
        assert (r.returncode, text in r.stderr) == (2, True), r.stderr
    r = subprocess.run([program("hsmintd"), "--help"], capture_output=True, text=True)
    assert r.returncode == 0 and "Exit status" in r.stdout
    r = subprocess.run([program("hsmintd"), "--version"], capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.startswith("hsmintd ")


def test_mode_is_never_a_fallback(bare):
    code, text = bare.fails("--system")
    assert code == 1 and "does not say mode = system" in text
    bare.settings["daemon"]["mode"] = "system"
    code, text = bare.fails("--user")
    assert code == 1 and "says mode = system" in text
    assert not bare.socket.exists()


def test_bad_settings(bare):
    bare.settings["daemon"]["colour"] = "blue"
    code, text = bare.fails()
    assert code == 1 and "colour" in text
    code, text = bare.fails("--config", bare.place / "none.conf")
    assert code == 1 and "none.conf" in text


def test_no_hsm_is_named(bare):
    bare.settings["hsm"] = {}
    code, text = bare.fails()
    assert code == 1 and str(bare.config) in text and "hsmint init" in text


def test_orderly_end(bare):
    bare.start()
    assert bare.stop() == 0
    assert not bare.socket.exists()
    bare.start()
    bare.process.send_signal(signal.SIGINT)
    assert bare.process.wait(10) == 0


def test_hangup_is_no_end(bare):
    bare.start()
    bare.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "SIGHUP" in bare.log(), what="a line in the log")
    assert bare.answers()


def test_process_is_hardened(bare):
    evil = {
        "OPENSSL_CONF": "/tmp/none",
        "SSLKEYLOGFILE": str(bare.place / "keys"),
        "https_proxy": "http://127.0.0.1:9",
        "LD_BIND_NOT": "1",
    }
    bare.spawn(env=evil)
    wait_for(bare.answers, 15)
    pid = bare.process.pid
    assert status_field(pid, "Name") == "hsmintd"
    assert status_field(pid, "NoNewPrivs") == "1"
    assert status_field(pid, "Umask") == "0077"
    assert int(status_field(pid, "SigIgn"), 16) & 1 << signal.SIGPIPE - 1
    limits = proc(pid, "limits").decode()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    if os.geteuid() == 0:
        environment = proc(pid, "environ")
        for name in evil:
            assert name.encode() not in environment
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
    else:
        # Not dumpable: its files in /proc are root's although it is not.
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0


def test_inherits_no_descriptor(bare):
    r, w = os.pipe()
    bare.spawn(pass_fds=[w])
    wait_for(bare.answers, 15)
    os.close(w)
    assert os.read(r, 1) == b""
    os.close(r)


def test_socket_is_the_users_alone(bare):
    bare.start()
    assert stat.S_IMODE(bare.socket.stat().st_mode) == 0o600
    bare.stop()
    bare.run.chmod(0o755)
    code, text = bare.fails()
    assert code == 1 and str(bare.run) in text


def test_second_daemon(bare):
    bare.start()
    code, text = bare.fails("--socket", bare.run / "other")
    assert code == 1 and "in use by another hsmintd" in text
    assert not (bare.run / "other").exists()
    # The first one is undisturbed, socket included.
    assert bare.answers()


def test_one_that_leaves_is_waited_for(bare):
    bare.start()
    before = bare.process
    bare.spawn()
    time.sleep(0.5)
    assert bare.process.poll() is None
    before.terminate()
    assert before.wait(10) == 0
    wait_for(bare.answers, 15)


def test_socket_of_a_killed_daemon_is_replaced(bare):
    bare.start()
    bare.kill()
    assert bare.socket.exists()
    bare.start()


def test_something_else_at_the_socket_is_kept(bare):
    bare.socket.write_text("mine")
    code, text = bare.fails()
    assert code == 1 and str(bare.socket) in text
    assert bare.socket.read_text() == "mine"


def test_newer_schema(bare):
    bare.start()
    bare.stop()
    files = [f for f in bare.state.iterdir() if f.read_bytes().startswith(b"SQLite format 3")]
    assert len(files) == 1
    with sqlite3.connect(files[0]) as db:
        db.execute("PRAGMA user_version = 4711")
    code, text = bare.fails()
    assert code == 1 and "4711" in text, text


def test_read_only_state(bare):
    bare.start()
    bare.stop()
    if os.geteuid() != 0:
        bare.state.chmod(0o500)
        for f in bare.state.iterdir():
            f.chmod(0o400)
    elif subprocess.run(["mount", "--bind", "-o", "ro", bare.state, bare.state], capture_output=True).returncode:
        pytest.skip("cannot mount read-only")
    try:
        code, text = bare.fails()
        assert code == 1
        assert str(bare.state) in text and "ead-only" in text, text
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", bare.state], check=True)
        else:
            bare.state.chmod(0o700)


def test_state_of_somebody_else(bare):
    bare.state.mkdir(mode=0o755)
    code, text = bare.fails()
    assert code == 1 and str(bare.state) in text


@pytest.fixture
def system(bare):
    """A system daemon: its socket is open to all, and uids are checked."""
    bare.settings["daemon"]["mode"] = "system"
    bare.place.chmod(0o755)
    bare.run.chmod(0o755)
    bare.start("--system")
    return bare


def test_system_socket(system):
    assert stat.S_IMODE(system.socket.stat().st_mode) == 0o666
    with system.connect() as c:
        assert c.attach()["mode"] == "system"
        with pytest.raises(Error) as e:
            c.call("Stop", force=True)
        assert e.value.name == "Denied"


ASKED = [
    ("Status", {}),
    ("Lock", {}),
    ("Random", {"count": 8}),
    ("GetConfig", {}),
    ("Init", {"request_id": "01m7ystyxz25y5b3t5grqay39s"}),
    ("SetRole", {"name": "r", "fields": {}, "request_id": "01m7ystyxz25y5b3t5grqay39s"}),
    ("GetRole", {"name": "r"}),
]


def test_without_a_policy_nobody_may_anything(system):
    """Everybody is served, root and the daemon's own uid included: by refusals."""

    def ask():
        answers = []
        with system.connect() as c:
            c.attach()
            for method, parameters in ASKED:
                try:
                    c.call(method, **parameters)
                    answers.append(f"{method} was done")
                except Error as e:
                    answers.append(e.name)
        return answers

    refused = ["Denied"] * len(ASKED)
    assert as_uid(65534, ask) == refused
    assert ask() == refused


def test_strangers_take_nobodys_place(system):
    def crowd():
        return len([system.connect() for _ in range(300)])

    assert as_uid(65534, crowd) == 300
    assert system.answers()


def test_null_pin_confirms_the_peer(system):
    with system.attached() as c:
        c.call("Login")
        c.call("Logout")


def test_connection_limit(bare):
    bare.settings["daemon"]["max_connections"] = 3
    bare.start()
    # The connections of start() are counted until they are gone.
    first = bare.attached()
    wait_for(lambda: first.call("Status")["status"]["daemon"]["connections"] == 1)
    others = [bare.attached() for _ in range(2)]
    with bare.connect() as c, pytest.raises(Error) as e:
        c.attach()
    assert e.value.name == "Limit" and "max_connections" in e.value.text
    others[0].close()
    wait_for(lambda: first.call("Status")["status"]["daemon"]["connections"] == 2)
    assert bare.answers()


def test_idle_exit(bare):
    bare.settings["daemon"]["idle_exit"] = "2s"
    bare.start()
    with bare.attached():
        time.sleep(3.5)
        assert bare.process.poll() is None
    assert bare.process.wait(8) == 0
    assert "idle" in bare.log()


def test_stop(bare):
    bare.start()
    with bare.attached() as c:
        assert c.call("Stop") == {}
    assert bare.process.wait(10) == 0


def test_calls_in_flight_end(bare):
    """An answer that is underway at SIGTERM still comes."""
    bare.start()
    with bare.attached() as c:
        c.send({"method": "org.hsmint.Status"})
        bare.process.terminate()
        try:
            message, _ = c.receive()
            assert "status" in message["parameters"]
        except (EOFError, OSError):
            pass  # it had not been read yet
        end = time.monotonic() + 10
        with pytest.raises((EOFError, OSError)):
            while time.monotonic() < end:  # the signal may come a little later
                c.call("Status")
    assert bare.process.wait(10) == 0


def activate(bare, **environment):
    """Start it as systemd does: listening socket on descriptor 3."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(bare.socket))
    listener.listen()

    bare.write_config()
    command = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 0</dev/null', *map(str, bare.command())]
    with open(bare.log_file, "ab") as log:
        bare.process = subprocess.Popen(
            command, stdin=listener.fileno(), stderr=log, env={**os.environ, **environment}
        )
    return listener


def test_socket_activation(bare):
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = bare.place / "notify"
    notify.bind(str(path))
    notify.settimeout(15)
    with activate(bare, NOTIFY_SOCKET=str(path)):
        with bare.attached():
            pass
        assert notify.recv(4096).startswith(b"READY=1\n")
        bare.process.terminate()
        assert notify.recv(4096).startswith(b"STOPPING=1\n")
        assert bare.process.wait(10) == 0
        # systemd's socket is not ours to remove.
        assert bare.socket.exists()
    assert b"LISTEN" not in bare.log_file.read_bytes()


def test_application_joins_by_token(bare):
    bare.start()
    with bare.attached() as first:
        with bare.attached(token=first.token) as second:
            status = lambda: second.call("Status")["status"]["daemon"]
            wait_for(lambda: status()["applications"] == 1, what="the one that asked whether it runs to be gone")
            assert status()["connections"] >= 2
        with bare.connect() as c, pytest.raises(Error) as e:
            c.attach(token="0" * 64)
        assert e.value.name == "NotFound"
    # The last connection ended it.
    def gone():
        with bare.connect() as c:
            try:
                c.attach(token=first.token)
            except Error as e:
                return e.name == "NotFound"
    wait_for(gone)


def test_forked_child_does_not_keep_it_alive(bare):
    """The socket lives on in a child; the process that attached has ended."""
    bare.start()
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        c = bare.attached("parent")
        if os.fork() == 0:
            try:
                while True:
                    c.call("Slots")
                    time.sleep(0.01)
            except Exception as e:
                os.write(w, type(e).__name__.encode())
            os._exit(0)
        time.sleep(0.2)
        os._exit(0)
    os.close(w)
    os.waitpid(pid, 0)
    died = time.monotonic()
    with os.fdopen(r, "rb") as f:
        assert f.read() in (b"EOFError", b"Error", b"ConnectionResetError", b"BrokenPipeError")
    assert time.monotonic() - died < patience(1)


def test_settings_and_socket_by_default(bare):
    """As a user types it: no option at all."""
    home = bare.place / "config"
    (home / "hsmint").mkdir(parents=True)
    del bare.settings["daemon"]["socket"]
    bare.write_config()
    bare.config.rename(home / "hsmint/hsmint.conf")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home), "XDG_RUNTIME_DIR": str(bare.place)}
    bare.socket = bare.place / "hsmint" / "socket"
    with open(bare.log_file, "ab") as log:
        bare.process = subprocess.Popen([program("hsmintd")], stderr=log, env=environment)
    wait_for(bare.answers, 15)
    assert stat.S_IMODE(bare.socket.parent.stat().st_mode) == 0o700
