"""Fixtures: a private SoftHSM2 token, the double of the service, a configuration
and a daemon, each in a directory of its own that goes away afterwards.

    def test_x(daemon):                 # started, HSM provisioned by nobody yet
    def test_y(ready):                  # initialised, admin key set, role "my-app"
        with ready.attached() as c: c.change("Mint", role="my-app")

The build to test: $top_builddir, else ./build of the source tree.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import pytest

from varlink import Connection, Error

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("top_builddir") or SOURCE / "build")
PIN = "271828"
PROJECT = "proj_abc"


def program(*parts):
    path = BUILD.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path


def softhsm_module():
    for folder in ("/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/lib64/pkcs11", "/usr/lib/x86_64-linux-gnu/softhsm"):
        path = pathlib.Path(folder, "libsofthsm2.so")
        if path.exists():
            return path
    pytest.skip("softhsm2 is not installed")


def patience(seconds):
    """A deadline of `seconds`, for a machine whose other work leaves us a part of its
    time only: as many times longer as it has more to run than processors."""
    return seconds * min(8, max(1, os.getloadavg()[0] / os.cpu_count()))


def wait_for(check, seconds=10, what="condition"):
    """check() until it is true; its value. Fails the test when time is up."""
    began, end = time.monotonic(), time.monotonic() + patience(seconds)
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {time.monotonic() - began:.1f} s")
        time.sleep(0.01)


def not_on_a_busy_machine(reason):
    """Skips a test of what the product itself has deadlines for, where other work leaves
    us too little of the machine to keep them."""
    if os.getloadavg()[0] > 6 * os.cpu_count():
        pytest.skip(f"{os.getloadavg()[0]:.0f} to run on {os.cpu_count()} processors: {reason}")


def sanitized():
    """Was this built with AddressSanitizer?"""
    return b"__asan_init" in program("hsmintd").read_bytes()


def not_sanitized(reason):
    """Skips a test that a build with AddressSanitizer cannot pass."""
    if sanitized():
        pytest.skip(reason)


def only_root_looks():
    """Skips a test that looks into daemon or keeper in /proc when that is not for us:
    they are not dumpable."""
    if os.geteuid() != 0:
        pytest.skip("only root looks into a process that is not dumpable")


def as_uid(uid, function):
    """function() in a forked child under another uid; what it returned (JSON)."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(w, json.dumps(function()).encode())
        except BaseException as e:  # the child must never return into pytest
            os.write(w, json.dumps(f"{type(e).__name__}: {e}").encode())
        finally:
            os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        text = f.read()
    os.waitpid(pid, 0)
    return json.loads(text)


@pytest.fixture
def place():
    """A short private directory: a socket's path has 107 bytes at most."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="hsmint-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Token:
    """A SoftHSM2 token; `environment` is what its library needs."""

    def __init__(self, place, label="test", pin=PIN):
        self.label, self.pin = label, pin
        self.directory = place / f"token-{label}"
        self.directory.mkdir(mode=0o700)
        self.config = place / f"softhsm2-{label}.conf"
        self.config.write_text(f"directories.tokendir = {self.directory}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(self.config)}
        self.module = softhsm_module()
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "314159"],
            env={**os.environ, **self.environment},
            check=True,
            stdout=subprocess.DEVNULL,
        )


@pytest.fixture
def token(place):
    return Token(place)


class Service:
    """The double: tests/adminsim/hsmint-adminsim."""

    def __init__(self, place, *options):
        self.directory = place / "double"
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.admin_key_file = self.directory / "admin-key"
        self.log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen(
            [program("tests", "adminsim", "hsmint-adminsim"), "--tls", self.directory]
            + ["--admin-key-file", self.admin_key_file, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        started = json.loads(self.process.stdout.readline())
        self.url, self.ca, self.control_url = started["url"], started["ca_file"], started["control"]
        self.context = ssl.create_default_context(cafile=self.ca)
        self.admin_key = self.admin_key_file.read_text().strip()

    def request(self, method, url, body=None, bearer=None):
        """(status, JSON) of one request."""
        r = urllib.request.Request(url, method=method)
        if body is not None:
            r.data = json.dumps(body).encode()
            r.add_header("Content-Type", "application/json")
        if bearer:
            r.add_header("Authorization", "Bearer " + bearer)
        try:
            context = self.context if url.startswith("https") else None
            with urllib.request.urlopen(r, context=context, timeout=120) as reply:
                return reply.status, json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as e:
            text = e.read()
            try:
                return e.code, json.loads(text)
            except ValueError:
                return e.code, text

    def control(self, path, body=None, method=None):
        """The double's control endpoint: tests/adminsim/README.md."""
        method = method or ("GET" if body is None else "POST")
        status, reply = self.request(method, f"{self.control_url}/{path}", body)
        assert status == 200, reply
        return reply

    def fault(self, **fault):
        self.control("faults", fault)

    def alive(self):
        """How many service accounts exist, by the double's own count."""
        return self.control("counters")["accounts_alive"]

    def accepts(self, key):
        """Does the service take this minted key?"""
        status, _ = self.request("GET", self.url + "/models", bearer=key)
        assert status in (200, 401), status
        return status == 200

    def accounts(self, project=PROJECT):
        """Service accounts that exist there, asked as an administrator would."""
        path = f"{self.url}/organization/projects/{project}/service_accounts?limit=100"
        found, after = [], ""
        while True:
            status, page = self.request("GET", path + after, bearer=self.admin_key)
            assert status == 200, page
            found += page["data"]
            if not page["has_more"]:
                return found
            after = "&after=" + found[-1]["id"]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.log.close()


@pytest.fixture
def service(place):
    s = Service(place)
    yield s
    s.stop()


def child_named(name, parent):
    """The process id of a child of `parent` that is called so, or None."""
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            comm, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # it has ended
        state, its_parent = rest.split()[:2]
        if comm.startswith(name) and int(its_parent) == parent and state != "Z":
            return int(stat.parent.name)
    return None


class Daemon:
    """hsmintd with a state, a socket and a configuration of its own."""

    of_this_test = []

    def __init__(self, place, token, service=None):
        self.of_this_test.append(self)
        self.place, self.token, self.service = place, token, service
        self.state = place / "state"
        self.run = place / "run"
        self.socket = self.run / "socket"
        self.config = place / "hsmint.conf"
        self.pin_file = place / "pin"
        self.log_file = place / "daemon.log"
        self.process = None
        self.settings = {
            "daemon": {"mode": "user", "state_dir": self.state, "socket": self.socket, "log": "stderr", "log_level": "debug"},
            "hsm": {"module": token.module, "uri": f"pkcs11:token={token.label}", "pin_source": self.pin_file},
            "hsm.env": dict(token.environment),
            "service": {"ca_file": service.ca, "hosts": "127.0.0.1"} if service else {},
        }
        self.pin_file.write_text(token.pin)
        self.pin_file.chmod(0o600)
        self.run.mkdir(mode=0o700)

    def write_config(self):
        text = ""
        for section, values in self.settings.items():
            text += f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in values.items()) + "\n"
        self.config.write_text(text)
        self.config.chmod(0o600)

    def command(self, *options):
        return [program("hsmintd"), "--config", self.config, "--keeper", program("hsmint-keeper"), *options]

    def spawn(self, *options, env=None, **popen):
        """Start without waiting; its standard error goes to log_file."""
        self.write_config()
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                self.command(*options),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **(env or {})},
                **popen,
            )
        return self.process

    def start(self, *options, **popen):
        self.spawn(*options, **popen)
        wait_for(self.answers, 15, "the daemon to start")
        return self

    def answers(self):
        if self.process.poll() is not None:
            pytest.fail(f"hsmintd ended with {self.process.returncode}:\n{self.log()}")
        try:
            with self.attached():
                return True
        except (OSError, EOFError):
            return False

    def fails(self, *options, **run):
        """Start it, expecting it not to: (exit status, text)."""
        self.write_config()
        r = subprocess.run(
            self.command(*options), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, **run
        )
        return r.returncode, r.stderr

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def connect(self, **options):
        return Connection(self.socket, **options)

    def attached(self, program="pytest", token=None, **options):
        c = self.connect(**options)
        try:
            c.attach(program, token)
        except BaseException:
            c.close()
            raise
        return c

    def keeper(self):
        """The keeper's process id, None while there is none."""
        return child_named("hsmint-keeper", self.process.pid)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self):
        """Orderly; returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def end(self):
        """After a test: stopped, and no sanitizer had anything to say."""
        self.stop()
        for word in ("Sanitizer", "runtime error:"):
            assert word not in self.log(), self.log()[-20000:]

    def set_key(self, c):
        """False where a short [hsm] deadline was over, on a busy machine: nothing was sent."""
        try:
            c.change(
                "SetConfig",
                secret=self.service.admin_key.encode(),
                fields={"api_endpoint": self.service.url, "organization_id": "org-adminsim"},
                keep_first=True,
            )
        except Error as e:
            if e.name != "NotLogged":
                raise
            return False
        return True

    def prepare(self):
        """Initialise, set the admin key, make the role my-app."""
        with self.attached() as c:
            c.change("Init")
            wait_for(lambda: self.set_key(c), 10, "an HSM that answers in time")
            c.change("SetRole", name="my-app", fields={"project_id": PROJECT, "ttl": 3600, "max_ttl": 86400})
        return self


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure comes with the end of what the daemons said."""
    report = (yield).get_result()
    if report.failed:
        for d in Daemon.of_this_test:
            report.sections.append((f"{d.log_file}", d.log()[-8000:]))
    if call.when == "teardown":
        Daemon.of_this_test.clear()


@contextlib.contextmanager
def callers(mint, least):
    """Four that mint at full speed meanwhile; a list of what they got. None fails."""
    stop, failed, made = threading.Event(), [], []

    def caller():
        while not stop.is_set():
            try:
                made.append(mint())
            except (Error, OSError, EOFError) as e:
                failed.append(str(e))

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        yield made
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not failed and len(made) > least, failed[:3]


def others_can_run(name, uid=65533):
    """Skips a test that starts one of our programs as somebody else, where the build is
    in a directory that is closed to others."""
    if as_uid(uid, lambda: os.access(program(name), os.X_OK)) is not True:
        pytest.skip("the build's directory is closed to other uids")


class Apart(Daemon):
    """Daemon and keeper under a uid each, the keeper behind a socket: [daemon]
    keeper_socket and hsmint-keeper --listen. What belongs to whom is as an
    installation has it. Requests have to come from the daemon's uid: attempt()."""

    DAEMON, KEEPER = 23001, 23002

    def __init__(self, place, token, service):
        super().__init__(place, token, service)
        if os.geteuid() != 0:
            pytest.skip("only root starts programs under other uids")
        if not shutil.which("setpriv"):
            pytest.skip("setpriv (util-linux) is not installed")
        others_can_run("hsmint-keeper", self.KEEPER)
        self.keeper_run = place / "keeper"
        self.keeper_socket = self.keeper_run / "socket"
        self.keeper_log = place / "keeper.log"
        self.keeper_state = place / "keeper-state"
        self.listener = None
        ca = place / "ca.pem"
        shutil.copy(service.ca, ca)
        self.state.mkdir(mode=0o700)
        self.keeper_run.mkdir(mode=0o755)
        self.keeper_state.mkdir(mode=0o700)
        place.chmod(0o755)
        ca.chmod(0o644)
        self.give(self.DAEMON, self.state, self.run)
        self.give(self.KEEPER, self.keeper_run, self.keeper_state, self.pin_file, token.config, token.directory)
        token.config.chmod(0o600)
        self.settings["daemon"].update(keeper_socket=self.keeper_socket, user=self.DAEMON)
        self.settings["hsm"]["keeper_state_dir"] = self.keeper_state
        self.settings["service"]["ca_file"] = ca

    @staticmethod
    def give(uid, *paths):
        for path in paths:
            for p in [path, *path.rglob("*")] if path.is_dir() else [path]:
                os.chown(p, uid, uid)

    @staticmethod
    def under(uid, *command):
        return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *command]

    def write_config(self):
        super().write_config()
        self.config.chmod(0o644)  # root's: both read it, neither writes it

    def command(self, *options):
        return self.under(self.DAEMON, program("hsmintd"), "--config", self.config, *options)

    def listen(self):
        """Start hsmint-keeper --listen."""
        self.write_config()
        with open(self.keeper_log, "ab") as log:
            self.listener = subprocess.Popen(
                self.under(self.KEEPER, program("hsmint-keeper"), "--config", self.config, "--listen", self.keeper_socket),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        wait_for(self.keeper_socket.exists, 10, "the keeper to listen")
        return self

    def start(self, *options, **popen):
        if self.listener is None:
            self.listen()
        return super().start(*options, **popen)

    def attempt(self, function):
        """function(connection) as the daemon's uid."""

        def run():
            with Daemon.attached(self) as c:
                return function(c)

        return as_uid(self.DAEMON, run)

    def answers(self):
        if self.process.poll() is not None:
            pytest.fail(f"hsmintd ended with {self.process.returncode}:\n{self.log()}")
        return self.attempt(lambda c: True) is True

    def prepare(self):
        assert as_uid(self.DAEMON, lambda: bool(Daemon.prepare(self))) is True
        return self

    def log(self):
        keeper = self.keeper_log.read_text(errors="replace") if self.keeper_log.exists() else ""
        return super().log() + keeper

    def keeper(self):
        return child_named("hsmint-keeper", self.listener.pid)

    def stop(self):
        status = super().stop()
        if self.listener and self.listener.poll() is None:
            self.listener.terminate()
            assert self.listener.wait(60) == 0, self.log()
        return status


@pytest.fixture
def apart_stopped(place, token, service):
    d = Apart(place, token, service)
    yield d
    d.end()


@pytest.fixture
def apart(apart_stopped):
    """As `ready`, with a keeper of its own uid."""
    return apart_stopped.start().prepare()


@pytest.fixture
def daemon_stopped(place, token, service):
    d = Daemon(place, token, service)
    yield d
    d.end()


@pytest.fixture
def daemon(daemon_stopped):
    return daemon_stopped.start()


@pytest.fixture
def bare(place, token):
    """A daemon without a service, not started."""
    d = Daemon(place, token)
    yield d
    d.end()


@pytest.fixture
def ready(daemon):
    return daemon.prepare()
