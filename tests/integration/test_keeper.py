"""A keeper of its own uid, behind a socket."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess

from conftest import Apart, as_uid, program, wait_for


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def uid_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Uid:"))


def mint(c):
    lease = c.change("Mint", role="my-app")
    assert lease.secret
    return lease["lease"]["lease_id"]


def is_lease(text):
    return re.fullmatch("[0-9a-hjkmnp-tv-z]{26}", text) is not None


def test_mints(apart):
    lease = apart.attempt(mint)
    assert apart.service.alive() == 1
    apart.attempt(lambda c: c.change("Revoke", lease_id=lease) and None)
    assert apart.service.alive() == 0
    assert uid_of(apart.process.pid) == Apart.DAEMON
    assert uid_of(apart.keeper()) == Apart.KEEPER
    status = apart.attempt(lambda c: c.call("Status"))
    assert status["status"]["keeper"]["pid"] == apart.keeper()


def test_killed(apart):
    """The next call gets another keeper; nobody has to log in."""
    first = apart.keeper()
    os.kill(first, signal.SIGKILL)
    assert is_lease(apart.attempt(mint))
    assert apart.keeper() not in (None, first)
    assert apart.service.alive() == 1


def test_stopped_daemon_ends_it(apart):
    keeper = apart.keeper()
    apart.process.terminate()
    assert apart.process.wait(30) == 0
    wait_for(lambda: gone(keeper), what="the keeper to end with its daemon")


def test_killed_daemon_ends_a_hung_one(apart):
    """Stopped, its threads cannot see that their channels closed; let go, it
    ends at once."""
    keeper = apart.keeper()
    os.kill(keeper, signal.SIGSTOP)
    apart.kill()
    with contextlib.suppress(ProcessLookupError):  # the kernel lets it go where its group is orphaned
        os.kill(keeper, signal.SIGCONT)
    wait_for(lambda: gone(keeper), what="the keeper to end")


def test_stopped_one_is_replaced(apart_stopped):
    """It does not answer in time: its connection is closed, and another one serves.
    Let go, it ends without a word to the daemon."""
    apart_stopped.settings["hsm"]["deadline"] = "1s"
    apart = apart_stopped.start().prepare()
    first = apart.keeper()
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: is_lease(apart.attempt(mint)), 30, "a mint by another keeper")
    assert not gone(first)
    os.kill(first, signal.SIGCONT)
    wait_for(lambda: gone(first), what="the first one to end")


def test_hung_in_the_hsm(apart_stopped):
    """Its threads wait inside SoftHSM, for locks on the token's files: it ends with
    its connection all the same, which nobody could make it do by a signal."""
    apart_stopped.settings["hsm"]["deadline"] = "1s"
    apart = apart_stopped.start().prepare()
    first = apart.keeper()
    held = [open(p, "r+b") for p in apart.token.directory.rglob("*") if p.is_file()]
    for f in held:
        fcntl.lockf(f, fcntl.LOCK_EX)
    answer = apart.attempt(mint)
    assert "Keeper" in answer, answer
    wait_for(lambda: gone(first), what="the hung keeper to end")
    for f in held:
        f.close()
    wait_for(lambda: is_lease(apart.attempt(mint)), 30, "a mint by another keeper")
    assert apart.keeper() != first


def test_nobody_listens(apart_stopped):
    apart_stopped.listen()
    apart_stopped.listener.terminate()
    assert apart_stopped.listener.wait(10) == 0
    assert not apart_stopped.keeper_socket.exists()
    apart_stopped.start()
    text = apart_stopped.attempt(lambda c: c.change("Init") and None)
    assert "keeper_socket" in text and "hsmint-keeper.socket" in text, text
    assert apart_stopped.process.poll() is None
    apart_stopped.listen()
    wait_for(lambda: apart_stopped.attempt(lambda c: c.change("Init") is not None) is True, what="the new keeper")


def test_listener_restarts(apart):
    """A keeper at work stays; the next one comes from the new listener."""
    keeper = apart.keeper()
    apart.listener.terminate()
    assert apart.listener.wait(10) == 0
    assert is_lease(apart.attempt(mint))
    assert not gone(keeper)
    apart.listen()
    os.kill(keeper, signal.SIGKILL)
    assert is_lease(apart.attempt(mint))
    assert apart.keeper()


HEADER = struct.pack("=IHH", 0x686D4331, 1, 1)


def refusal(apart, uid, data=HEADER, fds=1):
    """What the keeper answers to a handover by this uid, as text."""

    def ask():
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(apart.keeper_socket))
            pairs = [socket.socketpair() for _ in range(fds)]
            try:
                socket.send_fds(s, [data], [p[0].fileno() for p in pairs])
            except BrokenPipeError:
                pass  # refused before it was asked
            answer = b""
            while part := s.recv(4096):
                answer += part
                if len(answer) >= 16 and len(answer) >= 16 + struct.unpack_from("=I", answer, 8)[0]:
                    break
            return answer[16:].decode()

    return as_uid(uid, ask)


def test_strangers(apart):
    """Only [daemon] user is served, and what is no handover is refused."""
    assert "serves 23001" in refusal(apart, 23003)
    assert "serves 23001" in refusal(apart, Apart.KEEPER)
    assert "serves 23001" in refusal(apart, 0)
    served = refusal(apart, Apart.DAEMON)
    assert '"pid"' in served, served
    assert "no handover" in refusal(apart, Apart.DAEMON, b"x" * 8)
    assert "no handover" in refusal(apart, Apart.DAEMON, HEADER[:4])
    assert "versions" in refusal(apart, Apart.DAEMON, struct.pack("=IHH", 0x686D4331, 2, 1))
    assert "2 descriptors" in refusal(apart, Apart.DAEMON, fds=2)
    assert "65 channels" in refusal(apart, Apart.DAEMON, struct.pack("=IHH", 0x686D4331, 1, 65), fds=65)
    assert is_lease(apart.attempt(mint))


def test_many(apart):
    """Seventeen keepers that never end: the last ones are told why not."""
    script = (
        "import socket,struct,sys,time\n"
        "held=[]\n"
        "for i in range(20):\n"
        f"  s=socket.socket(socket.AF_UNIX); s.connect({str(apart.keeper_socket)!r})\n"
        "  a,b=socket.socketpair()\n"
        f"  try: socket.send_fds(s,[{HEADER!r}],[a.fileno()])\n"
        "  except BrokenPipeError: pass\n"
        "  text=s.recv(4096)[16:].decode(); held.append((s,b))\n"
        "  print(text,flush=True)\n"
        "time.sleep(600)\n"
    )
    p = subprocess.Popen(Apart.under(Apart.DAEMON, "python3", "-c", script), stdout=subprocess.PIPE, text=True)
    try:
        answers = [p.stdout.readline() for _ in range(20)]
    finally:
        p.kill()
        p.wait()
    served = [a for a in answers if '"pid"' in a]
    assert len(served) == 15, answers  # and the daemon's own
    assert all("keepers run already" in a for a in answers[15:])
    wait_for(lambda: apart.log().count("ended with 0") >= 15, what="them to end")
    assert is_lease(apart.attempt(mint))


def test_system_mode(apart_stopped):
    """Nobody has a policy; the keeper is there all the same, and logged in."""
    apart_stopped.settings["daemon"]["mode"] = "system"
    apart_stopped.run.chmod(0o755)
    apart_stopped.start("--system")
    assert apart_stopped.attempt(lambda c: c.call("Slots")["locked"]) is False
    assert uid_of(apart_stopped.keeper()) == Apart.KEEPER


def test_unknown_user(apart_stopped):
    apart_stopped.settings["daemon"]["user"] = "no-such-user"
    apart_stopped.write_config()
    r = subprocess.run(
        [program("hsmint-keeper"), "--config", apart_stopped.config, "--listen", apart_stopped.keeper_socket],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert r.returncode != 0 and "there is no user no-such-user" in r.stderr, r
    assert not apart_stopped.keeper_socket.exists()


def test_by_hand(apart_stopped):
    """--accepted without a service manager says so."""
    apart_stopped.write_config()
    for environment, word in (({}, "Accept=yes"), ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "Accept=yes")):
        r = subprocess.run(
            [program("hsmint-keeper"), "--config", apart_stopped.config, "--accepted"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert r.returncode == 2 and word in r.stderr, r
