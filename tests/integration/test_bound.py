"""Leases that are bound to a session, whatever ends it: row by row, with the real
daemon, keeper, HSM and double. Few daemons, many rows: each story is one."""

import os
import signal
import threading
import time

import pytest

from conftest import PIN, wait_for
from test_lease import mint
from test_pkcs11 import Client, leases, so  # noqa: F401 (fixture)
from varlink import Error

GRACE = 10


class Program(Client):
    """p11client, logged in; what it minted by name."""

    def __init__(self, *args):
        super().__init__(*args)
        self.ok("open")
        self.ok(f"login {PIN}")

    def key(self, how):
        (handle,) = self.ok(f"mint my-app {how} 0")
        return self.ok(f"read {handle}")[0]


@pytest.fixture
def programs(ready, so, place):  # noqa: F811
    made = []

    def start():
        made.append(Program(ready, so, place))
        return made[-1]

    yield start
    for p in made:
        p.end()


def dies(service, key, seconds=1.5):
    wait_for(lambda: not service.accepts(key), seconds, "the bound key to die")


def test_sessions_and_processes(ready, service, programs):
    p = programs()
    one, free = p.key("bound"), p.key("token")
    p.ok("use 1")
    p.ok("open")
    two, three = p.key("bound"), p.key("bound")
    # One of two sessions.
    p.ok("close")
    dies(service, two)
    dies(service, three)
    assert service.accepts(one) and service.accepts(free)
    # A child that is forked owns nothing, and ends nothing, by whatever it does.
    p.ok("use 0")
    p.ok("fork use")
    p.ok("fork anew")
    assert service.accepts(one)
    # A keeper that is killed loses no lease; a session that ends meanwhile is seen to.
    four = p.key("bound")
    keeper = ready.keeper()
    os.kill(keeper, signal.SIGKILL)
    assert service.accepts(one) and service.accepts(four)
    p.ok("logout")
    dies(service, one, 5)
    dies(service, four, 5)
    assert service.accepts(free) and ready.keeper() != keeper
    # Exit, and SIGKILL while a child holds the socket.
    p.ok(f"login {PIN}")
    five = p.key("bound")
    p.ok("exit")
    dies(service, five)
    q = programs()
    six = q.key("bound")
    (child,) = q.ok("fork sleep")
    try:
        q.process.send_signal(signal.SIGKILL)
        dies(service, six)
    finally:
        os.kill(int(child), signal.SIGKILL)
    assert service.accepts(free)
    # The account dies before the store has written so.
    wait_for(lambda: [lease["bound"] for lease in leases(ready)] == [False], what="the bound leases to end")


def test_restarts(ready, service, programs):
    """SIGKILL of the daemon, with the grace after it."""
    back, idle, gone, closes = programs(), programs(), programs(), programs()
    kept, lost, orphan = back.key("bound"), idle.key("bound"), gone.key("bound")
    free, closed = idle.key("token"), closes.key("bound")
    closes.ok("use 1")
    closes.ok("open")
    closes_kept = closes.key("bound")
    raw = ready.attached("raw")
    ends = [mint(raw, bound=True, session=n)[1] for n in range(1, 5)]
    other = mint(raw, bound=True, session=9)[1]
    away = ready.attached("away")
    strayed, unbound = mint(away, bound=True)[1], mint(away)[1]
    service.control("settings", {"latency_ms": 100})
    # The daemon that said so is killed at once: what it was told is on disk.
    for n in range(1, 5):
        raw.call("EndSession", session=n)
    ready.kill()
    service.control("settings", {"latency_ms": 0})
    gone.process.kill()
    gone.process.wait(10)
    closes.ok("use 0")
    closes.ok("close")  # told to nobody yet
    ready.start()
    raw = ready.attached("raw", token=raw.token)
    for key in ends:
        dies(service, key, 5)
    back.ok("mint my-app token 0")
    # By any call in another session: what the daemon before was not told of.
    closes.ok("use 1")
    closes.ok("mint my-app token 0")
    dies(service, closed, 3)
    assert all(map(service.accepts, (kept, lost, orphan, strayed, free, closes_kept, other)))
    # A second restart within the grace: it begins anew.
    ready.stop()
    began = time.monotonic()
    ready.start()
    back.ok("mint my-app token 0")
    closes.ok("mint my-app token 0")
    assert all(map(service.accepts, (kept, lost, orphan, strayed, free, closes_kept, other)))
    raw = ready.attached("raw", token=raw.token)
    for key in (lost, orphan, strayed):
        dies(service, key, GRACE + 3)
        assert time.monotonic() - began >= GRACE
    assert all(map(service.accepts, (kept, free, closes_kept, other)))
    assert service.accepts(unbound)
    with ready.connect() as late, pytest.raises(Error) as e:
        late.attach(token=away.token)
    assert e.value.name == "NotFound"
    # Who was idle comes back as somebody new, and who returned ends as ever.
    assert service.accepts(idle.key("bound"))
    back.process.kill()
    dies(service, kept)
    raw.close()
    dies(service, other)
    assert service.accepts(free) and service.accepts(closes_kept)


def test_stopped_in_the_middle_of_calls(ready, service):
    """A daemon that leaves ends nobody, whatever its loop is at."""
    for _ in range(2):
        clients = [ready.attached(f"caller-{n}") for n in range(16)]
        keys = [mint(c, bound=True)[1] for c in clients]

        def call(c):
            try:
                while True:
                    c.call("ListRoles")
            except (EOFError, OSError):
                pass

        threads = [threading.Thread(target=call, args=(c,)) for c in clients]
        for t in threads:
            t.start()
        time.sleep(0.1)
        ready.stop()
        for t in threads:
            t.join()
        assert all(map(service.accepts, keys))
        ready.start()
        for c in clients:
            c.close()
            ready.attached("back", token=c.token).close()
        for key in keys:
            dies(service, key, 5)


def test_locked(ready, service, programs):
    """`hsmint lock`: sessions go on, and what ends meanwhile is revoked by the next login."""
    p = programs()
    one, two = p.key("bound"), p.key("bound")
    with ready.attached("raw") as c:
        three = mint(c, bound=True, session=1)[1]
        c.call("Lock")
        c.call("EndSession", session=1)
        time.sleep(0.3)
        assert all(map(service.accepts, (one, two, three)))
        with pytest.raises(Error) as e:
            mint(c)
        assert e.value.name in ("Locked", "NotLoggedIn")
        c.call("Login", secret=PIN.encode())
        dies(service, three, 5)
        assert service.accepts(one) and service.accepts(two)
        c.call("Lock")
        p.process.kill()
        p.process.wait(10)
        wait_for(lambda: sum(x["state"] == "revoking" for x in c.call("ListLeases", live=True)["leases"]) == 2, 3)
        assert service.accepts(one) and service.accepts(two)
        c.call("Login", secret=PIN.encode())
        dies(service, one, 5)
        dies(service, two, 5)
