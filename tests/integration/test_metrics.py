"""Metrics: the figures move as what they count does, from the daemon through the
exporter to Prometheus' text, and asking for them holds nobody up."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import PROJECT, SOURCE, patience, program, wait_for
from varlink import Error

KEPT_S = 5.5  # the daemon's costly figures may be that old
ASKED_S = 1.1  # and the exporter's answers

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def parse(text):
    """{(name, labels as a sorted tuple): value}; each line has to be one."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        name, labels, value = SAMPLE.match(line).groups()
        key = (name, tuple(sorted(LABEL.findall(labels or ""))))
        assert key not in samples, line
        samples[key] = float(value)
    return samples


def pick(samples, name, **labels):
    """The sum of the samples of a name that have these labels."""
    return sum(v for (n, l), v in samples.items() if n == name and set(labels.items()) <= set(l))


def told(c):
    """What the daemon itself says, by the method."""
    return {
        (f["name"] + s["suffix"], tuple(sorted(s["labels"].items()))): s["value"]
        for f in c.call("Metrics")["families"]
        for s in f["samples"]
    }


class Exporter:
    def __init__(self, daemon, *options):
        self.process = subprocess.Popen(
            [program("hsmint-exporter"), "--socket", daemon.socket, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = None

    def address(self):
        self.url = self.process.stderr.readline().split()[-1]
        assert self.url.startswith("http://127.0.0.1:"), self.url
        return self

    def text(self):
        with urllib.request.urlopen(self.url, timeout=120) as r:
            assert r.status == 200
            assert r.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            return r.read().decode()

    def scrape(self):
        return parse(self.text())

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(15)
        self.process.stderr.close()
        return status


@pytest.fixture
def exporter(daemon_stopped):
    e = Exporter(daemon_stopped, "--listen", "127.0.0.1:0").address()
    yield e
    assert e.stop() == 0


def once(daemon):
    r = subprocess.run([program("hsmint-exporter"), "--once", "--socket", daemon.socket], capture_output=True, text=True)
    return r.returncode, r.stdout, r.stderr


def promtool():
    path = shutil.which("promtool") or shutil.which(SOURCE / "build-aux/promtool")
    if not path:
        pytest.skip("there is no promtool (tools/deps test gets it)")
    return path


def test_figures_move(ready, exporter):
    with ready.attached() as c:
        before = told(c)
        leases = [c.change("Mint", role="my-app")["lease"]["lease_id"] for _ in range(5)]
        c.change("Renew", lease_id=leases[0], ttl=7200)
        c.change("Revoke", lease_id=leases[1])
        for role in ("no-such-role", 'x"} 1\nhsmint_up 1\n'):
            pytest.raises(Error, c.change, "Mint", role=role)
        pytest.raises(Error, c.change, "Mint", role="my-app", ttl=10**7)
        pytest.raises(Error, c.change, "Revoke", lease_id="nonsense")
        time.sleep(KEPT_S)
        after = exporter.scrape()

    def moved(name, **labels):
        return pick(after, name, **labels) - pick(before, name, **labels)

    assert pick(after, "hsmint_up") == 1
    assert moved("hsmint_mints_total", org="default", role="my-app", result="Ok") == 5
    assert moved("hsmint_mints_total", role="my-app", result="Ttl") == 1
    assert moved("hsmint_mints_total", role="", result="RoleUnknown") == 2
    assert moved("hsmint_renewals_total", role="my-app", result="Ok") == 1
    assert moved("hsmint_revocations_total", role="my-app", by="caller", result="Ok") == 1
    assert moved("hsmint_revocations_total", role="", by="caller", result="NotFound") == 1
    assert pick(after, "hsmint_leases", org="default", role="my-app", state="active") == 4
    assert moved("hsmint_mint_seconds_count") == 5 and moved("hsmint_mint_seconds_bucket", le="+Inf") == 5
    assert moved("hsmint_renew_seconds_count") == moved("hsmint_revoke_seconds_count") == 1
    assert moved("hsmint_api_requests_total", method="POST") == 6
    assert moved("hsmint_api_requests_total", method="DELETE") == 1
    assert moved("hsmint_api_request_seconds_count") == 7
    assert moved("hsmint_keeper_call_seconds_count", verb="sign-call") == 7
    assert moved("hsmint_commit_seconds_count") >= 14 and moved("hsmint_commit_changes_sum") >= 14
    assert moved("hsmint_expiry_total", org="default", outcome="honoured") == 5
    assert pick(after, "hsmint_expiry_state", state="honoured") == 1
    assert pick(after, "hsmint_hsm_state", state="ready") == 1
    assert pick(after, "hsmint_hsm_sessions", state="allowed") == 8
    assert pick(after, "hsmint_connections") >= 2 and pick(after, "hsmint_applications") >= 2
    assert pick(after, "hsmint_admin_key_configured", org="default") == 1
    assert abs(pick(after, "hsmint_start_timestamp_seconds") - time.time()) < 120
    assert pick(after, "hsmint_disk_free_bytes") > 0 and pick(after, "hsmint_store_bytes") > 0
    assert pick(after, "hsmint_leases_past_end") == pick(after, "hsmint_revocations_waiting") == 0


def test_reconcile(ready, service, exporter):
    service.control("service_accounts", {"project": PROJECT, "name": "foreign"})
    assert pick(exporter.scrape(), "hsmint_reconcile_period_seconds") == 3600
    for _ in range(2):  # what a run before a restart saw is told after it, too
        with ready.attached() as c:
            c.change("Reconcile")
            wait_for(lambda: c.call("ReconcileStatus")["report"]["state"] == "done", 30, "reconcile")
        ready.stop()
        ready.start()
        time.sleep(ASKED_S)
        samples = wait_for(lambda: (s := exporter.scrape()) and pick(s, "hsmint_up") and s, 10, "the daemon")
        assert pick(samples, "hsmint_reconcile_counts", what="foreign") == 1
        assert pick(samples, "hsmint_reconcile_running") == 0
        assert abs(pick(samples, "hsmint_reconcile_timestamp_seconds") - time.time()) < 60


def test_no_label_is_free(ready, exporter):
    """Names of roles that exist; nothing that a caller typed, no ids, no owners."""
    with ready.attached(program="a-program-of-mine") as c:
        c.change("SetRole", name="short-lived", fields={"project_id": PROJECT})
        lease = c.change("Mint", role="short-lived", label="a-label-of-mine")["lease"]
        pytest.raises(Error, c.change, "Mint", role="an-invention")
        assert pick(exporter.scrape(), "hsmint_mints_total", role="short-lived") == 1
        c.change("Revoke", lease_id=lease["lease_id"])
        c.change("DeleteRole", name="short-lived")
        time.sleep(KEPT_S)
        text = exporter.text()
    after = parse(text)
    assert pick(after, "hsmint_mints_total", role="short-lived") == 0
    assert pick(after, "hsmint_mints_total", result="Ok") == 1
    names = {name for _, labels in after for name, _ in labels}
    assert names <= set(
        "org role state result by capability reason method status outcome le verb flag id severity limit version what use".split()
    )
    for text_of_mine in ("short-lived", "an-invention", "a-program-of-mine", "a-label-of-mine", f"user:{os.geteuid()}",
                         lease["lease_id"], lease["service_account"], lease["service_account_id"], PROJECT):
        assert text_of_mine not in text, text_of_mine


def test_promtool_finds_nothing(ready, exporter):
    with ready.attached() as c:
        c.change("Mint", role="my-app")
    r = subprocess.run([promtool(), "check", "metrics"], input=exporter.text(), capture_output=True, text=True)
    assert (r.returncode, r.stdout, r.stderr) == (0, "", "")


def test_rate_limit_and_unknown(ready, service):
    with ready.attached() as c:
        service.fault(kind="status", status=429, method="POST", path="*/service_accounts")
        pytest.raises(Error, c.change, "Mint", role="my-app")
        service.fault(kind="drop", method="POST", path="*/service_accounts")
        pytest.raises(Error, c.change, "Mint", role="my-app")
        now = told(c)
    assert pick(now, "hsmint_api_requests_total", method="POST", status="429") == 1
    assert pick(now, "hsmint_api_requests_total", method="POST", status="unknown") == 1
    assert pick(now, "hsmint_mints_total", role="my-app", result="ServiceRate") == 1
    assert pick(now, "hsmint_mints_total", role="my-app", result="ServiceUnknown") == 1


def test_backlog_and_past_end(ready, service):
    """The service is down when a lease ends: it waits, is told, and is gone after."""
    with ready.attached() as c:
        c.change("Mint", role="my-app", ttl=1)
        early = c.change("Mint", role="my-app")["lease"]["lease_id"]
        service.fault(kind="status", status=503, method="DELETE", path="*", times=-1)
        pytest.raises(Error, c.change, "Revoke", lease_id=early)
        wait_for(lambda: pick(told(c), "hsmint_leases_past_end", org="default") == 1, 20, "a lease past its end")
        now = told(c)
        assert pick(now, "hsmint_revocations_waiting", org="default") == 2
        assert 1 < pick(now, "hsmint_revocations_waiting_seconds", org="default") < 60
        assert pick(now, "hsmint_revocations_total", by="daemon", result="ServiceFailed") >= 1
        assert pick(now, "hsmint_alarm", id="revocation-waits") == 1
        service.control("faults", method="DELETE")
        wait_for(lambda: pick(told(c), "hsmint_revocations_waiting", org="default") == 0, 20, "an empty backlog")
        now = told(c)
        assert pick(now, "hsmint_leases_past_end") == pick(now, "hsmint_revocations_waiting_seconds") == 0
        assert pick(now, "hsmint_revocations_total", by="daemon", result="Ok") == 2
        assert pick(now, "hsmint_alarm", id="revocation-waits") == 0


@pytest.mark.parametrize("how, state", [("ignore", "ignored"), ("refuse", "refused")])
def test_expiry(ready, service, how, state):
    service.control("settings", {"expiry": how})
    with ready.attached() as c:
        c.change("Mint", role="my-app")
        now = told(c)
    assert pick(now, "hsmint_expiry_total", org="default", outcome=state) == 1
    assert pick(now, "hsmint_expiry_state", org="default", state=state) == 1
    assert pick(now, "hsmint_expiry_state", org="default", state="honoured") == 0


def test_hung_hsm_hangs_no_scrape(ready, exporter):
    with ready.attached() as c:
        assert pick(told(c), "hsmint_hsm_state", state="ready") == 1
        keeper = ready.keeper()
        os.kill(keeper, signal.SIGSTOP)
        try:
            ages = []
            for _ in range(3):
                time.sleep(2)
                began = time.monotonic()
                now = exporter.scrape()
                assert time.monotonic() - began < patience(1.5)
                assert pick(now, "hsmint_up") == 1
                ages.append(pick(now, "hsmint_hsm_look_age_seconds"))
            assert ages[-1] >= 4 and ages == sorted(ages), ages
        finally:
            os.kill(keeper, signal.SIGCONT)


def test_keeper_restart(ready):
    with ready.attached() as c:
        before = pick(told(c), "hsmint_keeper_restarts_total")
        os.kill(ready.keeper(), signal.SIGKILL)
        c.change("Mint", role="my-app")
        now = told(c)
        assert pick(now, "hsmint_keeper_restarts_total") == before + 1 and pick(now, "hsmint_keeper_up") == 1


def test_daemon_down_and_back(daemon_stopped, exporter):
    """No daemon yet, then one, then none, then another: 200 each time."""
    d = daemon_stopped
    text = exporter.text()
    assert pick(parse(text), "hsmint_up") == 0 and 'hsmint_scrape_error{error="DaemonDown"} 1' in text
    d.start()
    time.sleep(ASKED_S)
    now = exporter.scrape()
    assert pick(now, "hsmint_up") == 1 and pick(now, "hsmint_scrape_error") == 0
    d.kill()
    time.sleep(ASKED_S)
    now = exporter.scrape()
    assert pick(now, "hsmint_up") == 0 and pick(now, "hsmint_connections") == 0
    d.start()
    time.sleep(ASKED_S)
    assert pick(exporter.scrape(), "hsmint_up") == 1


def test_scrapes_during_shutdown(ready, exporter):
    """Each is whole: the daemon's figures, or hsmint_up 0."""
    texts, ended = [], threading.Event()

    def scrape():
        while not ended.is_set():
            texts.append(exporter.text())
            time.sleep(0.05)

    def ask():
        while not ended.is_set():
            try:
                with ready.attached() as c:
                    while not ended.is_set():
                        told(c)
            except (OSError, EOFError, Error):
                time.sleep(0.01)

    threads = [threading.Thread(target=t) for t in (scrape, ask, ask)]
    for t in threads:
        t.start()
    try:
        for _ in range(3):
            time.sleep(1)
            assert ready.stop() == 0
            ready.start()
    finally:
        time.sleep(ASKED_S)
        ended.set()
        for t in threads:
            t.join(30)
    ups = [pick(parse(t), "hsmint_up") for t in texts]
    assert 1 in ups
    for text, up in zip(texts, ups):
        assert ("hsmint_alarm{" in text) == (up == 1)


def test_http(daemon, exporter):
    base = exporter.url.removesuffix("/metrics")

    def get(path, method="GET", data=None):
        try:
            r = urllib.request.Request(base + path, method=method, data=data)
            with urllib.request.urlopen(r, timeout=120) as reply:
                return reply.status
        except urllib.error.HTTPError as e:
            return e.code

    assert get("/") == get("/metrics") == get("/metrics?x=1") == 200
    assert get("/metrics/") == get("/etc/passwd") == get("/%2e%2e/") == 404
    assert get("/metrics", "POST", b"x" * 100000) == get("/metrics", "DELETE") == get("/metrics", "PUT", b"") == 405
    port = int(base.rsplit(":", 1)[1])

    def by_name(*host):
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.settimeout(10)
            version = "1.1" if host else "1.0"
            s.sendall(f"GET /metrics HTTP/{version}\r\n{''.join(f'Host: {h}' + chr(13) + chr(10) for h in host)}Connection: close\r\n\r\n".encode())
            return int(s.recv(1000).split()[1])

    # A browser here that was led to us by another's name reads nothing.
    for own in ("localhost", f"LocalHost:{port}", f"127.0.0.1:{port}", "127.1.2.3", f"[::1]:{port}"):
        assert by_name(own) == 200, own
    assert by_name() == 200
    for other in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "192.0.2.1", "[::]", "", "x" * 200):
        assert by_name(other) in (400, 421), other
    assert by_name("evil.example") == 421
    with socket.create_connection(("127.0.0.1", port)) as s:  # an endless head
        s.settimeout(10)
        try:
            s.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X-A: " + b"a" * 1000000)
            reply = s.recv(100)
        except OSError:
            reply = b""
        assert reply == b"" or reply.startswith(b"HTTP/1.1 4")
    with socket.create_connection(("127.0.0.1", port)) as half:  # holds nobody up
        half.sendall(b"GET /me")
        assert get("/metrics") == 200


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "0.0.0.0:9464"),
        ("--listen", "[::]:9464"),
        ("--listen", "192.0.2.1:9464"),
        ("--listen", "localhost:9464"),
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:70000"),
        ("--listen", "127.0.0.1:"),
        ("--textfile", "/tmp/metrics.txt"),
        ("--interval", "never"),
        ("--once", "--unix", "/tmp/x"),
        ("--nonsense",),
        ("word",),
    ],
)
def test_wrong_options(options):
    r = subprocess.run([program("hsmint-exporter"), *options], capture_output=True, text=True, timeout=120)
    assert r.returncode == 2 and r.stderr.startswith("hsmint-exporter: ") or "unrecognized" in r.stderr
    assert r.returncode == 2


def test_callers_and_limits(daemon_stopped):
    d = daemon_stopped
    d.settings["limits"] = {"connections": 6, "message_time": "1s"}
    d.start()
    with d.attached() as c:
        # The one that saw that it had started may still be leaving.
        wait_for(lambda: pick(told(c), "hsmint_connections") == 1, 10, "the others to leave")
        wait_for(lambda: pick(told(c), "hsmint_requests_in_flight") == 1, 10, "no request but ours")
        assert pick(told(c), "hsmint_limits_total") == 0
        others = [d.connect() for _ in range(8)]
        wait_for(lambda: pick(told(c), "hsmint_limits_total", limit="connections") == 3, 10, "connections refused")
        assert pick(told(c), "hsmint_connections") == 6
        others[0].sock.sendall(b'{"method":')  # and never the rest
        wait_for(lambda: pick(told(c), "hsmint_limits_total", limit="time") >= 1, 10, "a slow sender cut")
        for o in others:
            o.close()


def test_once(ready):
    status, text, _ = once(ready)
    assert status == 0 and pick(parse(text), "hsmint_up") == 1
    ready.stop()
    status, text, errors = once(ready)
    assert status == 5 and pick(parse(text), "hsmint_up") == 0 and "no daemon" in errors


def test_unix(daemon, place):
    path = place / "exporter"
    e = Exporter(daemon, "--unix", path)
    try:
        wait_for(path.exists, 10, "the socket")
        with socket.socket(socket.AF_UNIX) as s:
            wait_for(lambda: s.connect_ex(str(path)) == 0, 10, "a connection")
            s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        assert text.startswith("HTTP/1.") and "\nhsmint_up 1\n" in text
        assert path.stat().st_mode & 0o777 == 0o660
        second = subprocess.run([program("hsmint-exporter"), "--unix", path], capture_output=True, text=True, timeout=120)
        assert second.returncode == 1 and "somebody listens" in second.stderr
    finally:
        assert e.stop() == 0
    assert not path.exists()


def test_textfile(daemon, place):
    path = place / "hsmint.prom"
    e = Exporter(daemon, "--textfile", path, "--interval", "1")
    try:
        wait_for(path.exists, 10, "the file")
        assert pick(parse(path.read_text()), "hsmint_up") == 1
        assert path.stat().st_mode & 0o777 == 0o644
        daemon.kill()
        wait_for(lambda: pick(parse(path.read_text()), "hsmint_up") == 0, 10, "the daemon's end in the file")
        assert sorted(p.name for p in place.glob("hsmint.prom*")) == ["hsmint.prom"]
    finally:
        assert e.stop() == 0


def test_scrapes_do_not_slow_mints(ready):
    """A thousand of them, as fast as they come, past the exporter's own limit."""

    def mints(c, n=60):
        times = []
        for _ in range(n):
            began = time.perf_counter()
            c.change("Mint", role="my-app")
            times.append(time.perf_counter() - began)
        return sorted(times)[n // 2]

    scrapes = 0
    done = threading.Event()

    def scrape():
        nonlocal scrapes
        with ready.attached() as c:
            while scrapes < 1000 or not done.is_set():
                c.send({"method": "org.hsmint.Metrics", "parameters": {}})
                c.receive()
                scrapes += 1

    with ready.attached() as c:
        mints(c)
        alone = mints(c)
        t = threading.Thread(target=scrape)
        t.start()
        beside = mints(c)
        done.set()
        t.join(60)
    print(f"median mint {alone * 1e3:.2f} ms alone, {beside * 1e3:.2f} ms beside {scrapes} scrapes")
    # One core is the scraper's own, which is this very process.
    assert scrapes >= 1000 and beside < 5 * alone


def test_system_mode(bare):
    """A policy with `status` is all that the exporter needs, and it needs that. Refusals
    are counted by what was wanted."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    scraper, stranger = 64201, 64202
    policies = bare.place / "policies.d"
    policies.mkdir(mode=0o755)
    given = json.loads((SOURCE / "contrib/policies/hsmint-exporter.json").read_text())
    assert given["capabilities"] == ["status"] and given["subjects"] == ["unit:hsmint-exporter.service"]
    (policies / "exporter.json").write_text(json.dumps({**given, "subjects": [f"user:{scraper}"]}))
    (policies / "exporter.json").chmod(0o644)
    bare.settings["daemon"] |= {"mode": "system", "policies_dir": policies}
    for folder in (bare.place, bare.run):
        folder.chmod(0o755)
    bare.start("--system")
    shutil.copy(program("hsmint-exporter"), bare.place / "exporter")  # where anybody may run it

    def once_as(uid):
        r = subprocess.run([bare.place / "exporter", "--once", "--socket", bare.socket], capture_output=True, text=True,
                           user=uid, group=uid, extra_groups=[])
        return r.returncode, r.stdout

    status, text = once_as(scraper)
    assert status == 0 and pick(parse(text), "hsmint_up") == 1, text
    assert pick(parse(text), "hsmint_refusals_total") == 0
    status, text = once_as(stranger)
    assert status == 3 and "hsmint_up 0" in text and 'hsmint_scrape_error{error="Denied"} 1' in text, text
    status, text = once_as(scraper)
    assert pick(parse(text), "hsmint_refusals_total", capability="status", reason="policy") == 1
