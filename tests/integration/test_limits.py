"""Limits and fairness of the daemon's socket, between users.

Flooders, an honest caller and the daemon share the machine, so times are told
as ratios to those without a flood; what is asserted has room for a slow one.
"""

import array
import json
import os
import pathlib
import random
import resource
import select
import socket
import struct
import time

import pytest

import conftest
from conftest import PROJECT, as_uid, not_on_a_busy_machine, only_root_looks, patience, wait_for
from somebody import Somebody
from varlink import Connection, Error, pipe_with, request_id

HONEST, OTHER, FLOOD = 40001, 40002, 40100
IDLE, IDLE_USERS = 10_000, 8
SLOTS = b'{"method":"org.hsmint.Slots"}\0'
ATTACH = json.dumps({"method": "org.hsmint.Attach", "parameters": {"version": 1, "program": "flood"}}).encode() + b"\0"
POLICY = {
    "description": "whom this test calls honest",
    "subjects": [f"user:{HONEST}", f"user:{OTHER}"],
    "roles": ["*"],
    "capabilities": ["caller"],
}


@pytest.fixture
def tell(capfd):
    """A line of figures, in the test's output whatever comes of it."""

    def say(text):
        with capfd.disabled():
            print(f"# {text}", flush=True)

    return say


def open_to_all(daemon):
    """From its next start: a system daemon, to which everybody may connect."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    daemon.settings["daemon"] |= {"mode": "system", "log_level": "info"}
    daemon.place.chmod(0o755)
    daemon.run.chmod(0o755)
    return daemon


@pytest.fixture
def house(bare):
    """Nobody may mint."""
    return open_to_all(bare)


@pytest.fixture
def mint(daemon, service):
    """HONEST and OTHER may. It is set up in user mode, where root may all."""
    service.control("projects", {"id": "proj_slow", "name": "slow"})
    daemon.prepare()
    with daemon.attached() as c:
        c.change("SetRole", name="slow", fields={"project_id": "proj_slow", "ttl": 3600, "max_ttl": 86400})
        c.change("SetPolicy", name="honest", fields=POLICY)
    assert daemon.stop() == 0
    return open_to_all(daemon)


# ---- what somebody does; each in a process of its own ----


def mints(child, path, n, role="my-app"):
    """Milliseconds of each."""
    took = []
    with Connection(path) as c:
        c.attach("honest")
        for _ in range(n):
            began = time.monotonic()
            reply = c.change("Mint", role=role)
            took.append((time.monotonic() - began) * 1000)
            assert reply.secret
    return took


def calls(child, path, n):
    took = []
    with Connection(path) as c:
        c.attach("honest")
        for _ in range(n):
            began = time.monotonic()
            c.call("Slots")
            took.append((time.monotonic() - began) * 1000)
    return took


def many_idle(child, path, n):
    crowd = []
    for _ in range(n):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(path)
        crowd.append(s)
    child.say("ready")
    while not child.stopped(1):
        pass
    looks = select.poll()
    for s in crowd:
        looks.register(s, select.POLLIN)
    return len(crowd) - len(looks.poll(0))


def spins(child):
    child.say("ready")
    while not child.stopped():
        pass


def connect(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(path)
    s.setblocking(False)
    return s


def push(s, data, fds=()):
    """What goes; False when the daemon has hung up."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        s.sendmsg([data], rights)
        return True
    except (BlockingIOError, TimeoutError):
        return True
    except OSError:
        return False


def keep(child, path, act, n=1):
    """act(socket, round) on n connections, each made anew when it is cut."""
    crowd = [connect(path) for _ in range(n)]
    child.say("ready")
    rounds = cut = 0
    while not child.stopped():
        rounds += 1
        for i, s in enumerate(crowd):
            if not act(s, rounds):
                s.close()
                crowd[i] = connect(path)
                cut += 1
    for s in crowd:
        s.close()
    return {"rounds": rounds, "cut": cut}


def random_bytes(child, path):
    noise = random.Random(4)
    return keep(child, path, lambda s, r: push(s, noise.randbytes(noise.randrange(1, 4000))), 8)


def half_messages(child, path):
    """Hundreds of them, never whole."""
    return keep(child, path, lambda s, r: time.sleep(0.001) or r > 1 or push(s, b'{"method": "org.hsmint.Mi'), 500)


def endless(child, path):
    """A message of 4 GB, if only it were read."""
    block = b"x" * 65536
    return keep(child, path, lambda s, r: push(s, block), 8)


def slow_loris(child, path):
    return keep(child, path, lambda s, r: time.sleep(0.002) or push(s, b"{"), 100)


def descriptors(child, path):
    fd = os.open("/dev/null", os.O_RDONLY)
    return keep(child, path, lambda s, r: push(s, b'{"met', [fd] * (1 + r % 4)), 100)


def connect_and_close(child, path):
    n = 0
    child.say("ready")
    while not child.stopped():
        connect(path).close()
        n += 1
    return {"rounds": n}


def attach_and_close(child, path):
    n = 0
    child.say("ready")
    while not child.stopped():
        s = connect(path)
        push(s, ATTACH)
        s.close()
        n += 1
    return {"rounds": n}


def never_reads(child, path):
    """Asks for what is long and reads nothing."""
    ask = b'{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.hsmint"}}\0'
    return keep(child, path, lambda s, r: push(s, ask * 50), 20)


def asks_all_the_time(child, path, n=50):
    """Requests in a row on many connections, as fast as they are answered."""

    def act(s, r):
        try:
            while s.recv(1 << 20):
                pass
        except BlockingIOError:
            pass
        return push(s, SLOTS * 20)

    return keep(child, path, act, n)


STORM = [
    random_bytes,
    half_messages,
    endless,
    slow_loris,
    descriptors,
    connect_and_close,
    attach_and_close,
    never_reads,
    asks_all_the_time,
]


# ---- what is looked at ----


def status_of(daemon, name):
    text = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(name + ":")).split()[1])


def descriptors_of(daemon):
    """Without those of the store, which keeps a reader for each call at a time."""
    folder = pathlib.Path(f"/proc/{daemon.process.pid}/fd")
    n = 0
    for entry in os.listdir(folder):
        try:
            n += "store.db" not in os.readlink(folder / entry)
        except FileNotFoundError:
            pass  # closed meanwhile
    return n


def sanitized():
    program = pathlib.Path(conftest.BUILD, "hsmintd").read_bytes()
    return b"__asan_init" in program or b"__tsan_init" in program


def p(took, part):
    return sorted(took)[min(len(took) - 1, int(len(took) * part))]


def told(took):
    return f"p50 {p(took, 0.5):.1f} ms, p99 {p(took, 0.99):.1f} ms"


def run(uid, function, *arguments, seconds=120):
    with Somebody(uid, function, *arguments) as s:
        return s.result(seconds)


def idle_possible():
    """How many idle connections: the daemon raises its limit to the hard one and keeps some."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return IDLE if hard == resource.RLIM_INFINITY else min(IDLE, (hard - 768) * 2 // 3 - 700)


# ---- the tests ----


def test_idle_crowd_and_flood(mint, tell):
    only_root_looks()
    not_on_a_busy_machine("an honest caller's deadline is over before the flood begins")
    mint.start("--system")
    path, n = str(mint.socket), 100
    crowd_of = idle_possible() // IDLE_USERS
    run(HONEST, mints, path, 20)
    quiet = run(HONEST, mints, path, n)
    first = {"threads": status_of(mint, "Threads"), "fds": descriptors_of(mint), "rss": status_of(mint, "VmRSS")}
    tell(f"undisturbed: {told(quiet)}; {first}")

    load = [Somebody(FLOOD + i, spins) for i in range(len(STORM))]
    try:
        spun = run(HONEST, mints, path, n, seconds=300)
    finally:
        for c in load:
            c.__exit__()
    tell(f"{len(STORM)} processes that only compute: {told(spun)}, p99 ratio {p(spun, 0.99) / p(quiet, 0.99):.2f}")

    crowd = [Somebody(FLOOD + i, many_idle, path, crowd_of) for i in range(IDLE_USERS)]
    try:
        for c in crowd:
            c.wait("ready")
        idle = run(HONEST, mints, path, n)
        rss = status_of(mint, "VmRSS")
        tell(f"{crowd_of * IDLE_USERS} idle connections: {told(idle)}, p99 ratio {p(idle, 0.99) / p(quiet, 0.99):.2f}; RSS {rss} KiB")
        # Those that let the crowd in have nothing to do any more, and end.
        wait_for(lambda: status_of(mint, "Threads") <= first["threads"] + 2, 30, "threads to end")

        flood = [Somebody(FLOOD + 50 + i, f, path) for i, f in enumerate(STORM)]
        try:
            for f in flood:
                f.wait("ready")
            time.sleep(1)
            busy = run(HONEST, mints, path, n, seconds=300)
            most = status_of(mint, "VmRSS")
            tell(
                f"and a flood of {len(STORM)} kinds: {told(busy)}, p99 ratio {p(busy, 0.99) / p(quiet, 0.99):.2f}, "
                f"to mere computing {p(busy, 0.99) / p(spun, 0.99):.2f}; RSS {most} KiB, threads {status_of(mint, 'Threads')}, fds {descriptors_of(mint)}"
            )
            for f, s in zip(STORM, flood):
                s.stop()
                tell(f"{f.__name__}: {s.result()}")
        finally:
            for f in flood:
                f.__exit__()
        for c in crowd:
            c.stop()
        assert [c.result() for c in crowd] == [crowd_of] * IDLE_USERS  # nobody idle was cut
    finally:
        for c in crowd:
            c.__exit__()

    if not sanitized():  # those keep what is freed, and shadows of it
        assert most < first["rss"] + 256 * 1024, "memory is not bounded"
    assert p(busy, 0.5) < 2000 and p(busy, 0.99) < 10_000, "an honest caller has to wait"
    wait_for(lambda: descriptors_of(mint) <= first["fds"] + 8, 30, "descriptors to be given back")
    wait_for(lambda: status_of(mint, "Threads") <= first["threads"] + 1, 30, "threads to end")
    tell(f"afterwards: threads {status_of(mint, 'Threads')}, fds {descriptors_of(mint)}, RSS {status_of(mint, 'VmRSS')} KiB")
    assert run(HONEST, mints, path, 3)


def test_queue_of_one_is_not_the_others(house, tell):
    """One keeps fifty connections busy; another's calls come through."""
    house.start("--system")
    path = str(house.socket)
    quiet = run(HONEST, calls, path, 300)
    with Somebody(OTHER, asks_all_the_time, path) as greedy:
        greedy.wait("ready")
        time.sleep(0.5)
        busy = run(HONEST, calls, path, 300)
        greedy.stop()
        rounds = greedy.result()["rounds"]
    tell(f"alone {told(quiet)}; beside fifty busy connections {told(busy)}, p99 ratio {p(busy, 0.99) / p(quiet, 0.99):.2f} ({rounds} rounds)")
    assert p(busy, 0.5) < 200


def hung_mints(child, path, n):
    crowd = [Connection(path) for _ in range(n)]
    for c in crowd:
        c.attach("hung")
    for c in crowd:
        c.send({"method": "org.hsmint.Mint", "parameters": {"role": "slow", "request_id": request_id()}})
    child.say("ready")
    while not child.stopped(1):
        pass
    return len([c for c in crowd if select.select([c.sock], [], [], 0)[0]])


def test_service_that_hangs_for_one(mint, service, tell):
    """It holds half of the keeper's channels at most: the other one mints."""
    mint.settings["service"]["call_timeout"] = "60s"
    mint.start("--system")
    path = str(mint.socket)
    run(HONEST, mints, path, 5)
    quiet = run(HONEST, mints, path, 40)
    service.fault(kind="hang", path="*/proj_slow/*", ms=30_000, times=-1)
    with Somebody(OTHER, hung_mints, path, 100) as hung:
        hung.wait("ready")
        wait_for(lambda: service.control("counters")["in_flight"] >= 4, what="calls to hang")
        busy = run(HONEST, mints, path, 40, seconds=60)
        assert service.control("counters")["in_flight"] <= 5
        hung.stop()
        assert hung.result() == 0  # none of them was answered meanwhile
    tell(f"alone {told(quiet)}; beside 100 calls that hang {told(busy)}, p99 ratio {p(busy, 0.99) / p(quiet, 0.99):.2f}")
    assert p(busy, 0.99) < 5000
    service.control("faults", method="DELETE")
    mint.kill()  # what hangs would be waited for


def refusal(path, n):
    crowd = [Connection(path) for _ in range(n)]
    with Connection(path, timeout=5) as c:
        try:
            c.attach()
            return None, len(crowd)
        except Error as e:
            return e.name, e.text


def test_connections_of_one(house):
    house.settings["limits"] = {"connections": 20}
    house.start("--system")
    name, text = as_uid(FLOOD, lambda: refusal(house.socket, 20))
    assert name == "Limit" and "[limits] connections" in text and str(FLOOD) in text
    assert as_uid(FLOOD + 1, lambda: refusal(house.socket, 19))[0] is None
    wait_for(lambda: as_uid(FLOOD, lambda: refusal(house.socket, 19))[0] is None, what="room for one again")


def attached_until_refused(path):
    crowd = []
    try:
        while True:
            c = Connection(path)
            crowd.append(c)
            c.attach()
    except Error as e:
        return e.name, e.text, len(crowd)


def test_applications_of_one(house):
    house.settings["limits"] = {"applications": 7}
    house.start("--system")
    name, text, n = as_uid(FLOOD, lambda: attached_until_refused(house.socket))
    assert (name, n) == ("Limit", 8) and "[limits] applications" in text
    assert as_uid(FLOOD + 1, lambda: refusal(house.socket, 0))[0] is None


def unfinished(path, n, size):
    """What the last of n connections hears that each sent half a message."""
    crowd = [Connection(path, timeout=5) for _ in range(n)]
    for c in crowd:
        try:
            c.send_bytes(b'{"method": "' + b"x" * size)
        except OSError:
            pass
    heard = []
    time.sleep(0.5)
    for c in crowd:
        if select.select([c.sock], [], [], 0)[0]:
            try:
                heard.append(c.receive()[0]["error"])
            except (EOFError, OSError) as e:
                heard.append(type(e).__name__)
    return heard


def test_unfinished_messages(house, tell):
    house.settings["limits"] = {"memory": "2M", "message_time": "30s"}
    house.start("--system")
    heard = as_uid(FLOOD, lambda: unfinished(house.socket, 10, 900_000))
    assert heard and set(heard) <= {"org.hsmint.Limit", "ConnectionResetError", "EOFError"}, heard
    assert "org.hsmint.Limit" in heard
    assert as_uid(FLOOD, lambda: unfinished(house.socket, 200, 500)) == []
    tell(f"of 10 half messages of 900 KB, {len(heard)} were refused; of 200 small ones none")


def test_rate_of_one(house):
    """Who is faster waits; the others do not."""
    house.settings["limits"] = {"requests_per_second": 20, "burst": 20}
    house.start("--system")
    path = str(house.socket)
    with Somebody(FLOOD, calls, path, 60) as fast:
        began = time.monotonic()
        run(HONEST, calls, path, 10)
        assert time.monotonic() - began < patience(2)
        fast.result()
        assert time.monotonic() - began > 1.5


def lists_of_nothing(path):
    """A megabyte that would be a hundred once it is decoded."""
    with Connection(path) as c:
        c.send_bytes(b'{"method":"org.hsmint.Slots","parameters":{"x":[' + b"{}," * 340_000 + b"{}]}}\0")
        return c.receive()[0]


def test_many_values(house):
    house.start("--system")
    message = as_uid(FLOOD, lambda: lists_of_nothing(house.socket))
    assert message["error"] == "org.hsmint.Protocol" and "values" in message["parameters"]["text"]


def test_half_a_message_with_descriptors(bare):
    """They are closed with it, however many came."""
    only_root_looks()
    bare.start()
    before = descriptors_of(bare)
    crowd = [bare.connect() for _ in range(60)]
    fd = pipe_with(b"x")
    for c in crowd:
        try:
            c.send_bytes(b'{"met', [fd])
        except OSError:
            pass  # it was one too many, and is cut
    time.sleep(0.3)
    assert descriptors_of(bare) <= before + 60 + 40
    with bare.attached() as c:
        c.call("Slots")
    for c in crowd:
        c.close()
    os.close(fd)
    wait_for(lambda: descriptors_of(bare) <= before + 2, what="descriptors to be closed")


def lingering():
    """A socket whose last close() waits: for a reader that never comes."""
    with socket.socket() as listener:
        listener.bind((b"127.0.0.1", 0))  # bytes: a name would need a codec that only root may read
        listener.listen()
        s = socket.socket()
        s.connect((b"127.0.0.1", listener.getsockname()[1]))
        peer, _ = listener.accept()
    s.setblocking(False)
    try:
        while True:
            s.send(b"x" * 65536)
    except BlockingIOError:
        pass
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 6))
    return s, peer


def hand_over(child, path, data, n):
    """Descriptors whose last close() is the daemon's, and waits."""
    kept = []
    for _ in range(n):
        with connect(path) as c:
            s, peer = lingering()
            kept.append(peer)
            push(c, data, [s.fileno()])
            s.close()
            time.sleep(0.2)
    child.say("ready")
    while not child.stopped(1):
        pass
    return len(kept)


@pytest.mark.parametrize("data", [b'{"met', SLOTS], ids=["half", "whole"])
def test_descriptors_whose_close_waits(house, data):
    """Whoever passed them waits for it, and the others do not."""
    house.start("--system")
    path = str(house.socket)
    run(HONEST, calls, path, 5)
    with Somebody(FLOOD, hand_over, path, data, 3) as flood:
        flood.wait("ready")
        for _ in range(3):
            began = time.monotonic()
            run(HONEST, calls, path, 10)
            assert time.monotonic() - began < patience(3)


def test_reply_that_is_not_read(bare):
    """It has its time, and then the connection goes; meanwhile nothing waits for it."""
    only_root_looks()
    bare.settings["limits"] = {"reply_time": "2s"}
    bare.start()
    before = descriptors_of(bare)
    threads = status_of(bare, "Threads")
    crowd = [bare.connect() for _ in range(40)]
    ask = b'{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.hsmint"}}\0'
    for c in crowd:
        c.sock.setblocking(False)
        try:
            while True:
                c.sock.send(ask * 20)
        except BlockingIOError:
            pass
    with bare.attached() as c:
        began = time.monotonic()
        c.call("Slots")
        assert time.monotonic() - began < patience(1)
    assert status_of(bare, "Threads") <= threads + 16
    wait_for(lambda: descriptors_of(bare) <= before + 3, 15, "those that do not read to be cut")
    for c in crowd:
        c.close()


def test_in_order_and_one_at_a_time(bare):
    """A thousand requests in one go, answered in the order in which they came."""
    bare.start()
    with bare.attached() as c:
        want = []
        data = b""
        for i in range(1000):
            method, parameters = ("Slots", {}) if i % 3 else ("EndSession", {"session": i % 2})
            want.append({("Slots", 0): "slots", ("EndSession", 0): "error", ("EndSession", 1): "done"}[method, parameters.get("session", 0)])
            data += json.dumps({"method": "org.hsmint." + method, "parameters": parameters}).encode() + b"\0"
        with_thread = Somebody(0, lambda child: c.sock.sendall(data)) if os.geteuid() == 0 else None
        if with_thread is None:
            c.sock.sendall(data)
        got = []
        for _ in want:
            m, _ = c.receive()
            got.append("error" if "error" in m else "slots" if "slots" in m["parameters"] else "done")
        if with_thread:
            with_thread.__exit__()
        assert got == want


def test_drain_with_a_crowd(bare):
    """SIGTERM with hundreds of connections, some in the middle of a request."""
    bare.start()
    crowd = [bare.attached() for _ in range(100)] + [bare.connect() for _ in range(200)]
    for c in crowd[::3]:
        c.send_bytes(SLOTS * 5 + b'{"met')
    began = time.monotonic()
    assert bare.stop() == 0
    assert time.monotonic() - began < patience(5)
    for c in crowd:
        c.close()
