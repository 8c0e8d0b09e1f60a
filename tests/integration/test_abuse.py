"""The module in the hands of a host that misuses it: abuse.c's cases, a process
each, on the module itself, through p11-kit-proxy and through p11-kit's remoting."""

import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from conftest import PIN, SOURCE, Daemon, Service, Token, program, wait_for
from test_pkcs11 import leases, loader, need, p11_kit_client
from varlink import Error

CASES = 100  # at least

# What p11-kit 0.24 answers itself, or does to what passes through it; the module
# does better without it (test_the_module_itself has the same cases).
NULLS = "the proxy's C_GetFunctionStatus and C_CancelFunction answer without asking the module"
READS = "the client copies what a count or length says before the module sees it"
HANDLE = "the client looks at the place for the handle first, or only when the module has answered"
EMPTY = "an empty buffer arrives at the module as a question for the size"
P11_KIT = {
    "proxy": {
        "every_function_before_initialize": "it looks at its state before it has one",
        "every_function_after_finalize": "it looks at its state when it has none",
        "every_function_with_guessed_sessions": NULLS,
        "every_function_on_a_closed_session": NULLS,
        "initialize_with_some_mutexes": "the proxy does not look at the arguments",
        "initialize_with_mutexes_alone": "the proxy does not look at the arguments",
        "guessed_slots": "C_CloseAllSessions of no slot is CKR_OK there",
    },
    "remote": {
        "every_function_before_initialize": HANDLE,
        "every_function_after_finalize": HANDLE,
        "every_function_with_guessed_sessions": HANDLE,
        "every_function_on_a_closed_session": HANDLE,
        "no_place_for_the_handle": HANDLE,
        "every_function_with_all_ones": READS,
        "every_function_with_all_ones_logged_in": READS,
        "template_of_2_to_the_32": READS,
        "template_of_all_ones": READS,
        "templates_in_templates": READS,
        "values_nowhere_with_a_length": "a NULL value arrives as a zero of its type",
        "setting_lies": "a NULL value arrives as an empty one",
        "searches_with_lies": "a NULL value arrives as an empty one",
        "each_attribute_into_short_buffers": EMPTY,
        "random_bytes": EMPTY,
        "searches_of_odd_sizes": "the client refuses a search for none",
        "unknown_attributes_are_told": "no template attributes cross; the client gives CKR_DEVICE_ERROR",
        "mechanism_parameters": "parameters of mechanisms without any are dropped",
        "slot_events": "C_WaitForSlotEvent is not remoted",
        "guessed_slots": "C_CloseAllSessions of no slot is CKR_OK there",
        "session_handles_after_finalize": "each connection has a server process, whose handles begin anew",
        "descriptors_close_on_exec": "the client's socket goes to executed programs",
    },
}
# In these p11-kit loses a race of its own, now and then: its C_Finalize frees
# what other threads use, and its client says CKR_DEVICE_ERROR then; a child that
# was forked while another thread was inside waits for ever for the lock that
# this thread held (seen in the proxy's C_Initialize).
RACES = {
    "proxy": [
        "finalize_races_all_functions", "finalize_races_itself", "threads_initialize_and_finalize",
        "fork_races_all_functions",
    ],
    "remote": ["finalize_races_all_functions", "finalize_races_mints", "finalize_races_itself", "threads_initialize_and_finalize"],
}


class Owner:
    """Does to the daemon what a case asks for, by lines on a socket."""

    def __init__(self, daemon):
        self.daemon, self.killed = daemon, False
        self.here, self.there = socket.socketpair()
        os.set_inheritable(self.there.fileno(), True)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        for line in self.here.makefile():
            try:
                answer = getattr(self, "do_" + line.strip())()
            except BaseException as e:  # the case's run ends then
                print("owner:", line.strip(), type(e).__name__, e)
                break
            self.here.sendall(b"%d\n" % (answer or 0))
        self.here.close()

    def do_alive(self):
        return self.daemon.service.alive()

    def do_stop(self):
        self.daemon.process.send_signal(signal.SIGSTOP)

    def do_continue(self):
        self.daemon.process.send_signal(signal.SIGCONT)

    def do_kill(self):
        self.daemon.kill()
        self.killed = True

    def do_restart(self):
        self.do_kill()
        self.daemon.start()

    def do_lock(self):
        with self.daemon.attached() as c:
            c.call("Lock")

    def do_ready(self):
        if self.daemon.process.poll() is not None:
            self.daemon.start()
        self.do_continue()
        with self.daemon.attached() as c:
            if c.call("Status").get("locked"):
                c.call("Login", secret=PIN.encode())
            # A new daemon gives the applications time to return; we have none.
            live = c.call("ListLeases", live=True)["leases"] if self.killed else []
            for lease in live:
                with contextlib.suppress(Error):  # it ends just now
                    c.change("Revoke", lease_id=lease["lease_id"])
        if not self.killed:
            wait_for(lambda: not any(l["bound"] for l in leases(self.daemon)), 10, "bound leases to end")


def abuse(daemon, module, kind, environment, *names, before=()):
    """Run the cases; name → None, or what was wrong."""
    owner = Owner(daemon)
    environment = {**environment, "ABUSE_CONTROL": str(owner.there.fileno())}
    try:
        r = subprocess.run(
            [*before, program("tests", "integration", "abuse"), module, kind, *names],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280,
            pass_fds=[owner.there.fileno()],
        )
    finally:
        owner.there.close()
        owner.thread.join(30)
        owner.do_continue()
    verdicts = {}
    for ok, name, why, ms in re.findall(r"(?m)^(ok|not ok) \d+ - (\w+)(?:: (.*))?\n# (\d+) ms$", r.stdout):
        verdicts[name] = None if ok == "ok" else why
        if int(ms) > 1000:
            print(f"{kind}: {name}: {ms} ms")
    print(*(f"{kind}: {name}: {why}" for name, why in verdicts.items() if why), sep="\n")
    assert f"1..{len(verdicts)}" in r.stdout.splitlines(), (r.returncode, r.stdout, r.stderr)
    return verdicts


def judge(verdicts, kind):
    known, races = P11_KIT.get(kind, {}), RACES.get(kind, [])
    faults = {name: why for name, why in verdicts.items() if why and name not in known and name not in races}
    better = [name for name in known if not verdicts[name]]
    for name, reason in known.items():
        print(f"{kind}: {name}: {verdicts[name]}: p11-kit's own: {reason}")
    assert not faults, faults
    assert not better, f"p11-kit has learnt these: {better}"
    assert len(verdicts) >= CASES


@pytest.fixture
def environment(request, ready, so):
    if loader(so):
        pytest.skip("cases take away memory and descriptors, which a sanitizer needs; valgrind looks instead")
    if thread_sanitized(so) and "watched" not in request.node.name:
        pytest.skip("under ThreadSanitizer only threads and forks are looked at")
    return {**os.environ, "HSMINT_SOCKET": str(ready.socket)}


@pytest.fixture
def so():
    return program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")


def cases(*parts, pattern=r"\w+"):
    sources = [(SOURCE / f"tests/integration/abuse_{part}.c").read_text() for part in parts]
    return re.findall(rf"(?m)^ +CASE\(({pattern}),", "".join(sources))


@pytest.fixture
def beside(place):
    """Two more daemons, with all that they need."""
    with contextlib.ExitStack() as stack:
        daemons = []
        for name in ("a", "b"):
            own = place / name
            own.mkdir(mode=0o700)
            service = Service(own)
            stack.callback(service.stop)
            d = Daemon(own, Token(own), service)
            stack.callback(d.end)
            daemons.append(d.start().prepare())
        yield daemons


def test_the_module_itself(ready, beside, so, environment):
    # What hangs or is killed is waited for, as long as the module's deadlines are:
    # these cases sleep beside the others, by daemons of their own.
    waiting = cases("daemon")
    runs = [(ready, [f"-{name}" for name in waiting]), (beside[0], waiting[::2]), (beside[1], waiting[1::2])]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        parts = [
            pool.submit(abuse, daemon, so, "direct", {**environment, "HSMINT_SOCKET": str(daemon.socket)}, *names)
            for daemon, names in runs
        ]
        verdicts = [part.result() for part in parts]
    assert sum(map(len, verdicts[1:])) == len(waiting)
    judge({name: why for part in verdicts for name, why in part.items()}, "direct")


def thread_sanitized(so):
    return b"__tsan_init" in so.read_bytes()


def watched(so, place):
    """The words before the cases, and what to say to what watches them: the sanitizer
    that they were built with, or valgrind. It writes where the last value says."""
    log = place / "races"
    if thread_sanitized(so):
        # A child forked by one thread of several goes on making threads.
        return [], {"TSAN_OPTIONS": f"log_path={log} die_after_fork=0 exitcode=99 atexit_sleep_ms=0"}, "races.*"
    return [need("valgrind"), "-q", "--leak-check=no", f"--log-file={log}.%p"], {}, "races.*"


def test_threads_and_forks_are_watched(ready, so, environment, place):
    names = cases("threads", "process", pattern=r"(?:threads|fork|finalize|close_all|childs|grand)\w+")
    assert len(names) >= 25
    before, options, logs = watched(so, place)
    verdicts = abuse(ready, so, "direct", {**environment, **options, "ABUSE_SLOW": "6"}, *names, before=before)
    assert not {name: why for name, why in verdicts.items() if why} and len(verdicts) == len(names)
    assert "".join(path.read_text() for path in place.glob(logs)) == ""


def test_through_p11_kit_proxy(ready, so, environment, place):
    proxy, before = p11_kit_proxy(so, place)
    judge(abuse(ready, proxy, "proxy", environment, before=before), "proxy")


def test_through_p11_kit_remoting(ready, so, environment, place):
    client, address = p11_kit_client(), place / "remote"
    server = subprocess.Popen(
        [need("p11-kit"), "server", "-f", "-n", address, "--provider", so, "pkcs11:"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(address.exists, 10, "p11-kit server to listen")
        far = {k: v for k, v in environment.items() if k != "HSMINT_SOCKET"}
        far["P11_KIT_SERVER_ADDRESS"] = f"unix:path={address}"
        judge(abuse(ready, client, "remote", far), "remote")
        assert server.poll() is None, "p11-kit server has ended"
    finally:
        server.terminate()
        server.wait(10)


def p11_kit_alone(place, text):
    """The words before a command whose p11-kit knows one .module file alone: in a
    mount namespace of its own, for root's p11-kit reads the system's files."""
    need("p11-kit"), need("unshare")
    modules = subprocess.run(
        ["pkg-config", "--variable=p11_module_configs", "p11-kit-1"], capture_output=True, text=True
    ).stdout.strip()
    if not modules:
        pytest.skip("pkg-config does not tell where p11-kit's files are")
    configured = place / "modules"
    configured.mkdir()
    (configured / "hsmint.module").write_text(text)
    words = ["unshare", "-m", "sh", "-c", f'mount --bind {configured} {modules} && exec "$@"', "sh"]
    if subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace may be made here")
    return words


def p11_kit_proxy(so, place):
    """The proxy, and the words before a command whose p11-kit knows hsmint alone."""
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"):
        path = os.path.join(folder, "p11-kit-proxy.so")
        if os.path.exists(path):
            return path, p11_kit_alone(place, f"module: {so}\ncritical: no\n")
    pytest.skip("p11-kit-proxy.so is not installed")
