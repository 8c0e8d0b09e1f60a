"""The command line, end to end: its own process, a real daemon, keeper and
token, and the double of the service."""

import json
import os
import pathlib
import pty
import select
import signal
import stat
import subprocess
import sys
import time

import pytest

from conftest import PIN, program, wait_for

DONE, FAILED, USAGE, REFUSED, MISSING, UNREACHABLE = range(6)


class Cli:
    """hsmint against one daemon; without a terminal of its own."""

    def __init__(self, daemon, **env):
        self.env = {
            **os.environ,
            "HSMINT_SOCKET": str(daemon.socket),
            "HSMINT_CONFIG": str(daemon.config),
            **{k: str(v) for k, v in env.items()},
        }

    def command(self, *words):
        return [str(program("hsmint")), *map(str, words)]

    def run(self, *words, stdin=b"", timeout=60):
        return subprocess.run(
            self.command(*words), env=self.env, input=stdin, capture_output=True, timeout=timeout, start_new_session=True
        )

    def ok(self, *words, **options):
        r = self.run(*words, **options)
        assert r.returncode == 0, r.stderr.decode()
        return r.stdout.decode()

    def json(self, *words, **options):
        return json.loads(self.ok(*words, "--json", **options))

    def fails(self, status, *words, **options):
        """Its text; exactly one line on standard error, nothing on output."""
        r = self.run(*words, **options)
        text = r.stderr.decode()
        assert r.returncode == status, (r.returncode, text)
        assert r.stdout == b""
        assert text.startswith("hsmint: ") and text.count("\n") == 1, text
        return text

    def start(self, *words, **options):
        return subprocess.Popen(
            self.command(*words),
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )


@pytest.fixture
def cli(ready):
    return Cli(ready)


# ---- setting up ----


def test_from_nothing_to_a_key(daemon, service):
    cli = Cli(daemon)
    made = cli.json("init")
    assert made["org"] == "default" and made["instance"] and made["hsm"]["mechanism"]
    cli.fails(FAILED, "init")
    assert "hsmint config set" in cli.fails(FAILED, "role", "set", "my-app", "project_id=proj_abc")
    cli.fails(MISSING, "mint", "my-app")
    key = service.admin_key.encode() + b"\n"
    set_ = cli.json(
        "config",
        "set",
        "admin_api_key=-",
        "organization_id=org-adminsim",
        f"api_endpoint={service.url}",
        stdin=key,
    )
    assert set_["config"]["admin_api_key_id"].startswith("key_")
    assert any("person" in w for w in set_["warnings"])
    role = cli.json("role", "set", "my-app", "project_id=proj_abc", "ttl=1h", "max_ttl=24h")
    assert (role["ttl"], role["max_ttl"]) == (3600, 86400)
    lease = cli.json("mint", "my-app")
    assert list(lease) == [
        "lease_id",
        "lease_duration",
        "lease_renewable",
        "api_key",
        "api_key_id",
        "service_account",
        "service_account_id",
        "api_base",
        "warnings",
    ]
    assert lease["lease_duration"] == 3600 and lease["lease_renewable"] is True
    assert lease["api_base"] == service.url
    assert service.accepts(lease["api_key"])
    for words in ("config show", "role show my-app", "role list", "status", "hsm show", "lease list"):
        text = cli.ok(*words.split()) + cli.ok(*words.split(), "--json")
        assert service.admin_key not in text and lease["api_key"] not in text


def test_the_admin_key_is_not_taken_from_the_command_line(cli, service):
    text = cli.fails(USAGE, "config", "set", "admin_api_key=sk-admin-secret", "organization_id=o")
    assert "sk-admin-secret" not in text and "admin_api_key=@FILE" in text
    path = service.directory / "loose"
    path.write_text(service.admin_key)
    path.chmod(0o644)
    assert "chmod 0600" in cli.fails(REFUSED, "config", "set", f"admin_api_key=@{path}")
    path.chmod(0o600)
    cli.ok("config", "set", f"admin_api_key=@{path}", f"api_endpoint={service.url}")


def test_config_and_roles_come_and_go(cli, service):
    cli.ok("role", "set", "other", "project_id=proj_abc", "keep_value=true")
    assert {r["name"] for r in cli.json("role", "list")} == {"my-app", "other"}
    table = cli.ok("role", "list").splitlines()
    assert table[0].split()[:2] == ["ROLE", "PROJECT"] and len(table) == 3
    cli.ok("role", "delete", "other")
    cli.fails(MISSING, "role", "show", "other")
    assert "project" in cli.fails(FAILED, "role", "set", "x", "project_id=proj_old")
    cli.fails(FAILED, "role", "set", "x", "project_id=proj_abc", "nonsense=1")
    lease = cli.json("mint", "my-app")
    cli.fails(FAILED, "config", "delete")
    cli.ok("lease", "revoke", lease["lease_id"])
    cli.ok("config", "delete")
    assert cli.json("config", "show")["configured"] is False


def test_init_writes_the_settings_and_starts_the_daemon(place, token, service):
    """A user with no file at all: the wrapper stands for the installed daemon."""
    (place / "run").mkdir(mode=0o700)
    wrapper = place / "hsmintd"
    state = place / "state"
    wrapper.write_text(
        f'#!/bin/sh\nexec {program("hsmintd")} "$@" --keeper {program("hsmint-keeper")} --state {state}\n'
    )
    wrapper.chmod(0o755)
    pin = place / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)

    class Nowhere:
        socket = place / "run" / "socket"
        config = place / "conf" / "hsmint" / "hsmint.conf"

    cli = Cli(Nowhere, HSMINT_DAEMON=wrapper)
    cli.fails(UNREACHABLE, "lock")  # starts nothing
    assert "--hsm-module" in cli.fails(USAGE, "init")
    assert not Nowhere.config.exists()
    hsm = ["--hsm-module", token.module, "--hsm-uri", f"pkcs11:token={token.label}", "--softhsm-conf", token.config]
    r = cli.run("init", *hsm, "--pin-file", pin)
    try:
        assert r.returncode == 0, r.stderr
        assert stat.S_IMODE(Nowhere.config.stat().st_mode) == 0o600
        assert stat.S_IMODE(Nowhere.config.parent.stat().st_mode) == 0o700
        assert f"module = {token.module}" in Nowhere.config.read_text()
        assert PIN not in Nowhere.config.read_text()
        assert cli.json("status")["locked"] is False
        cli.fails(USAGE, "init", *hsm)  # there is a file now
        cli.ok("lock")
        assert cli.json("status")["locked"] is True
        cli.fails(REFUSED, "role", "set", "x", "project_id=proj_abc")
        cli.ok("login", "--pin-file", pin)
        cli.ok("lock")
        cli.ok("unlock", "--pin-file", "-", stdin=PIN.encode())
    finally:
        cli.ok("daemon", "stop", "--force")
    wait_for(lambda: cli.run("lock").returncode == UNREACHABLE, what="the daemon to leave")


# ---- keys ----


def test_key_is_the_same_until_it_is_old(cli, service):
    first, second = cli.ok("key", "my-app"), cli.ok("key", "my-app")
    assert first == second and first.count("\n") == 1
    assert service.accepts(first.strip())
    assert cli.json("mint", "my-app")["api_key"] != first.strip()
    assert service.alive() == 2


@pytest.mark.parametrize("format", [[], ["--json"]])
def test_a_key_that_nobody_got_is_revoked(cli, service, format):
    with open("/dev/full", "w") as full:
        r = subprocess.run(cli.command("mint", "my-app", *format), env=cli.env, stdout=full, stderr=-1, text=True)
    assert r.returncode == FAILED and "revoked" in r.stderr, r.stderr
    assert service.alive() == 0


def test_leases_are_listed_renewed_and_revoked(cli, service):
    leases = [cli.json("mint", "my-app", "--ttl", "10m") for _ in range(3)]
    listed = cli.json("lease", "list")
    assert [l["lease_id"] for l in listed] == [l["lease_id"] for l in reversed(leases)]
    assert [l["lease_id"] for l in cli.json("lease", "list", "--limit", "2")] == [l["lease_id"] for l in listed[:2]]
    assert cli.json("lease", "list", "--role", "nobody") == []
    one = leases[0]["lease_id"]
    shown = cli.json("lease", "show", one)
    assert shown["state"] == "active" and shown["program"] == "hsmint" and "api_key" not in shown
    assert cli.json("lease", "renew", one, "--ttl", "2h")["lease_duration"] > 3600
    cli.fails(REFUSED, "lease", "renew", one, "--ttl", "30d")
    cli.ok("lease", "revoke", one, leases[1]["lease_id"])
    assert not service.accepts(leases[0]["api_key"]) and not service.accepts(leases[1]["api_key"])
    assert len(cli.json("lease", "list")) == 1 and len(cli.json("lease", "list", "--history")) == 3
    assert "revoked" in cli.ok("lease", "list", "--history")


def test_many_leases_take_many_pages(cli, ready):
    with ready.attached() as c:
        ids = [c.change("Mint", role="my-app")["lease"]["lease_id"] for _ in range(260)]
    assert [l["lease_id"] for l in cli.json("lease", "list")] == ids[::-1]


def test_each_failure_has_its_exit_status(cli, service):
    cli.fails(USAGE, "mint", "--nonsense")
    cli.fails(USAGE, "mint", "my-app", "--ttl", "forever")
    cli.fails(REFUSED, "mint", "my-app", "--ttl", "25h")
    cli.fails(MISSING, "mint", "nobody")
    cli.fails(MISSING, "lease", "show", "01m7yt0ya878cea7mhnanc12gd")
    cli.fails(MISSING, "mint", "my-app", "--org", "nowhere")
    service.fault(kind="status", status=500, method="POST", path="*/service_accounts", headers={"x-request-id": "req_five"})
    assert "(x-request-id req_five)" in cli.fails(UNREACHABLE, "mint", "my-app")
    assert service.alive() == 0


def test_errors_as_json(cli):
    r = cli.run("mint", "nobody", "--json")
    assert r.returncode == MISSING and r.stdout == b""
    e = json.loads(r.stderr)
    assert e["error"] == "RoleUnknown" and "nobody" in e["text"] and e["exit"] == MISSING
    r = cli.run("--json", "nonsense")
    assert json.loads(r.stderr)["error"] == "Usage" and r.returncode == USAGE


def test_names_of_others_cannot_paint_the_terminal(cli, ready):
    with ready.attached(program="\x1b[2J\x07evil") as c:
        lease = c.change("Mint", role="my-app")["lease"]["lease_id"]
    for words in (("lease", "list"), ("lease", "show", lease)):
        text = cli.ok(*words)
        assert "\x1b" not in text and "\x07" not in text and "evil" in text
    assert "\x1b" not in cli.run("role", "show", "x\x1b[2J").stderr.decode()


def test_without_a_daemon(place, token):
    class Nowhere:
        socket, config = place / "nobody" / "socket", place / "none.conf"

    text = Cli(Nowhere).fails(UNREACHABLE, "lock")
    assert str(Nowhere.socket) in text
    text = Cli(Nowhere).fails(UNREACHABLE, "status")
    assert str(Nowhere.config) in text and "hsmint init --hsm-module" in text


# ---- exec ----


def test_exec_gives_the_key_and_takes_it_back(cli, service):
    code = (
        "import os, sys, urllib.request, ssl\n"
        "c = ssl.create_default_context(cafile=sys.argv[1])\n"
        "r = urllib.request.Request(os.environ['OPENAI_BASE_URL'] + '/models')\n"
        "r.add_header('Authorization', 'Bearer ' + os.environ['OPENAI_API_KEY'])\n"
        "print(urllib.request.urlopen(r, context=c).status, os.environ['OPENAI_API_KEY'])\n"
        "sys.exit(7)\n"
    )
    cli.env["OPENAI_API_KEY"] = "old"
    r = cli.run("exec", "--role", "my-app", "--", sys.executable, "-c", code, service.ca)
    assert r.returncode == 7, r.stderr
    status, key = r.stdout.split()
    assert status == b"200" and key != b"old"
    assert not service.accepts(key.decode()) and service.alive() == 0


@pytest.mark.parametrize(
    "words,status",
    [
        (["true"], 0),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "exit 255"], 255),
        (["/nonexistent"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exec_ends_as_its_program_does(cli, service, words, status):
    assert cli.run("exec", "--role", "my-app", "--", *words).returncode == status
    assert service.alive() == 0


def test_exec_tells_its_own_failure_as_json(cli):
    r = cli.run("exec", "--json", "--role", "my-app", "--", "/nonexistent")
    assert (r.returncode, json.loads(r.stderr)["exit"]) == (127, 127)


def test_exec_forwards_signals(cli, service):
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    p = cli.start("exec", "--role", "my-app", "--", "sh", "-c", script)
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(signal.SIGTERM)
    assert p.wait(10) == 5
    assert p.stdout.read() == b"got\n"
    assert service.alive() == 0


def test_exec_keeps_the_key_to_the_child(cli):
    p = cli.start("exec", "--role", "my-app", "--", "sh", "-c", "echo $OPENAI_API_KEY; exec sleep 30")
    key = p.stdout.readline().strip()
    assert key.startswith(b"sk-")
    try:
        for name in ("environ", "cmdline"):
            try:
                text = pathlib.Path(f"/proc/{p.pid}/{name}").read_bytes()
            except PermissionError:
                continue
            assert key not in text
    finally:
        p.send_signal(signal.SIGTERM)
        assert p.wait(10) == 128 + signal.SIGTERM


def test_a_killed_exec_leaves_no_account(cli, service):
    p = cli.start("exec", "--role", "my-app", "--", "sh", "-c", "echo ready; exec sleep 30")
    assert p.stdout.readline() == b"ready\n"
    assert service.alive() == 1
    child = int(pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()[0])
    try:
        p.kill()
        p.wait(10)
        wait_for(lambda: service.alive() == 0, 2, "the account to go")
    finally:
        os.kill(child, signal.SIGKILL)


# ---- a daemon that is started anew ----


@pytest.mark.parametrize("settings", [True, False])
def test_a_command_survives_a_restart(cli, ready, service, settings, place):
    """Also where no daemon would be started by it: a system daemon's clients."""
    if not settings:
        cli.env["HSMINT_CONFIG"] = str(place / "none")
    service.control("settings", {"latency_ms": 400})
    asked = service.control("counters")["requests"]
    p = cli.start("mint", "my-app", "--json")
    wait_for(lambda: service.control("counters")["requests"] > asked, 10, "the request")
    ready.kill()
    service.control("settings", {"latency_ms": 0})
    ready.start()
    out, err = p.communicate(timeout=120)
    assert p.returncode == 0, err
    assert service.accepts(json.loads(out)["api_key"])
    wait_for(lambda: service.alive() == 1, 15, "one account")


# ---- the PIN ----


def test_a_locked_daemon_asks_for_the_pin(daemon_stopped, place, service):
    del daemon_stopped.settings["hsm"]["pin_source"]
    daemon = daemon_stopped.start()
    cli = Cli(daemon)
    assert "--pin-file" in cli.fails(REFUSED, "init")
    wrong = place / "wrong"
    wrong.write_text("000000")
    wrong.chmod(0o600)
    cli.fails(REFUSED, "init", "--pin-file", wrong)
    # SoftHSM2 says that tries are few after the first wrong one.
    assert "hsm unlock" in cli.fails(REFUSED, "init", "--pin-file", daemon.pin_file)
    cli.ok("hsm", "unlock", "--pin-file", daemon.pin_file)
    cli.ok("init")
    cli.ok("lock")
    wrong.chmod(0o644)
    assert "chmod" in cli.fails(REFUSED, "login", "--pin-file", wrong)


def type_at(cli, words, typed):
    """Run in a terminal, type when asked: (exit status, what the screen showed)."""
    pid, fd = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in a background job
        os.execve(cli.command()[0], cli.command(*words), cli.env)
    screen, sent, end = b"", False, time.monotonic() + 20
    while time.monotonic() < end:
        ready, _, _ = select.select([fd], [], [], 0.1)
        try:
            data = os.read(fd, 4096) if ready else b""
        except OSError:
            break
        if ready and not data:
            break
        screen += data
        if not sent and b"PIN" in screen and screen.endswith(b": "):
            os.write(fd, typed)
            sent = True
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    return os.waitstatus_to_exitcode(status), screen.decode()


def test_the_pin_is_typed_without_echo(daemon_stopped, service):
    del daemon_stopped.settings["hsm"]["pin_source"]
    daemon = daemon_stopped.start()
    cli = Cli(daemon)
    status, screen = type_at(cli, ["init"], PIN.encode() + b"\n")
    assert status == 0, screen
    assert PIN not in screen and "is set up" in screen
    cli.ok("lock")
    status, screen = type_at(cli, ["login"], b"999999\n")
    assert status == REFUSED and "999999" not in screen, screen
    status, screen = type_at(cli, ["hsm", "unlock"], b"\x03")
    assert status == -signal.SIGINT, screen
