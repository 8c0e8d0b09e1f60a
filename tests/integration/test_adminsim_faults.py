"""The double itself: its faults, settings, counters, and how it starts and ends.
tests/adminsim/README.md says what it promises."""

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time

import pytest

from adminapi import AdminApi
from conftest import Service, patience, program, wait_for

ACCOUNTS = "/v1/organization/projects/proj_abc/service_accounts"
ADMIN_KEYS = "/organization/admin_api_keys"


class Double(AdminApi):
    def __init__(self, service):
        super().__init__(service.url, service.admin_key, service.ca, seconds=10)
        self.service = service

    def control(self, method, path, body=None):
        status, answer = self.service.request(method, f"{self.service.control_url}/{path}", body)
        assert status == 200, (path, answer)
        return answer

    def set(self, **settings):
        return self.control("POST", "settings", settings)

    def fault(self, *faults):
        self.control("POST", "faults", list(faults))

    def counters(self):
        return self.control("GET", "counters")

    def alive(self):
        return self.counters()["accounts_alive"]


@pytest.fixture
def double(service):
    d = Double(service)
    yield d
    d.close()


ROUTES = [
    ("GET", "/organization/admin_api_keys"),
    ("POST", "/organization/admin_api_keys"),
    ("GET", "/organization/admin_api_keys/x"),
    ("DELETE", "/organization/admin_api_keys/x"),
    ("GET", "/organization/projects"),
    ("POST", "/organization/projects"),
    ("GET", "/organization/projects/proj_abc"),
    ("POST", "/organization/projects/proj_abc"),
    ("POST", "/organization/projects/proj_abc/archive"),
    ("GET", "/organization/projects/proj_abc/service_accounts"),
    ("POST", "/organization/projects/proj_abc/service_accounts"),
    ("GET", "/organization/projects/proj_abc/service_accounts/x"),
    ("POST", "/organization/projects/proj_abc/service_accounts/x"),
    ("DELETE", "/organization/projects/proj_abc/service_accounts/x"),
    ("POST", "/organization/projects/proj_abc/service_accounts/x/api_keys"),
    ("GET", "/organization/projects/proj_abc/api_keys"),
    ("GET", "/organization/projects/proj_abc/api_keys/x"),
    ("POST", "/organization/projects/proj_abc/api_keys/x"),
    ("DELETE", "/organization/projects/proj_abc/api_keys/x"),
    ("GET", "/organization/audit_logs"),
    ("GET", "/models"),
    ("GET", "/models/x"),
    ("POST", "/chat/completions"),
    ("POST", "/responses"),
    ("GET", "/nothing/here"),
]


def test_bearers_are_checked_everywhere(double):
    deleted = double.post(ADMIN_KEYS, {"name": "deleted"}).ok()
    double.delete(f"{ADMIN_KEYS}/{deleted['id']}").ok()
    expired = double.control("POST", "admin_keys", {"name": "expired"})
    double.control("POST", f"keys/{expired['id']}", {"expire": True})
    for method, path in ROUTES:
        for key in ("", "sk-admin-wrong", deleted["value"], expired["value"]):
            double.call(method, path, {"name": "x"} if method == "POST" else None, key=key).error(401)
    assert double.alive() == 0


def test_keys_of_the_wrong_sort(double):
    minted = double.mint()["api_key"]["value"]
    for method, path in ROUTES[:20]:
        r = double.call(method, path, {"name": "x"} if method == "POST" else None, key=minted)
        assert "Missing scopes" in r.error(403) and isinstance(r.json["error"], str)
    for method, path in ROUTES[20:24]:
        assert "Missing scopes" in double.call(method, path, {} if method == "POST" else None).error(403)
    assert double.get("/nothing/here").status == 404
    assert double.call("DELETE", "/organization/projects").status == 405


def test_expiry_by_its_own_clock(double):
    key = double.mint(expires_in_seconds=100)["api_key"]
    forever = double.mint()["api_key"]
    assert forever["expires_at"] is None
    assert double.works(key["value"])
    double.set(clock_offset_s=80)
    assert double.works(key["value"])
    double.set(clock_offset_s=101)
    assert not double.works(key["value"]) and double.works(forever["value"])
    double.post(f"{double.keys}/{key['id']}", {"expires_in_seconds": 60}).error(400)
    double.set(clock_offset_s=0)
    later = double.post(f"{double.keys}/{key['id']}", {"expires_in_seconds": 500}).ok()
    assert later["expires_at"] > key["expires_at"]


@pytest.mark.parametrize("how", ["ignore", "refuse"])
def test_expiry_ignored_or_refused(double, how):
    double.set(expiry=how)
    r = double.post(double.accounts, {"name": "x", "expires_in_seconds": 60})
    if how == "ignore":
        assert r.ok()["api_key"]["expires_at"] is None
    else:
        assert "expires_in_seconds" in r.error(400)
    double.set(expiry="honour")
    double.fault({"kind": f"{how}_expiry", "method": "POST"})
    r = double.post(double.accounts, {"name": "x", "expires_in_seconds": 60})
    assert r.ok()["api_key"]["expires_at"] is None if how == "ignore" else r.status == 400
    assert double.mint(expires_in_seconds=60)["api_key"]["expires_at"]


def test_a_policy_on_expiry(double):
    double.set(max_expiry_s=3600)
    double.post(double.accounts, {"name": "x"}).error(400)
    double.post(double.accounts, {"name": "x", "expires_in_seconds": 3601}).error(400)
    assert double.mint(expires_in_seconds=3600)["api_key"]["expires_at"]
    double.post(ADMIN_KEYS, {"name": "x"}).error(400)


def test_projects_that_take_no_accounts(double):
    for project in ("proj_old", "proj_default"):
        double.post(f"/organization/projects/{project}/service_accounts", {"name": "x"}).error(400)
    r = double.get("/organization/projects/proj_none")
    r.error(404)
    assert r.json["error"]["code"] == "project_not_found"
    double.post("/organization/projects/proj_default/archive").error(400)


def test_archiving_ends_the_keys(double):
    key = double.mint()["api_key"]["value"]
    assert double.post("/organization/projects/proj_abc/archive").ok()["status"] == "archived"
    assert not double.works(key)


def test_a_new_account_is_not_seen_at_once(double):
    double.set(visibility_ms=400)
    made = double.mint()
    path = f"{double.accounts}/{made['id']}"
    double.get(path).error(404)
    assert double.all(double.accounts) == []
    wait_for(lambda: double.get(path).status == 200, 5, "the account to be seen")
    second = double.mint()
    assert double.delete(f"{double.accounts}/{second['id']}").status == 200
    double.set(visibility_delete=True)
    third = double.mint()
    double.delete(f"{double.accounts}/{third['id']}").error(404)


def test_a_deleted_key_works_for_a_while(double):
    double.set(revoke_ms=500)
    made = double.mint()
    double.delete(f"{double.accounts}/{made['id']}").ok()
    assert double.works(made["api_key"]["value"])
    assert double.alive() == 0
    wait_for(lambda: not double.works(made["api_key"]["value"]), 5, "the key to be dead")


def test_rate_limit(double):
    double.set(rate_limit=3, rate_window_ms=1500)
    replies = [double.get("/organization/projects") for _ in range(4)]
    assert [r.status for r in replies] == [200, 200, 200, 429]
    assert 1 <= int(replies[3].headers["Retry-After"]) <= 2
    assert "try again after" in replies[3].error(429)
    assert replies[3].json["error"]["code"] == "rate_limit_exceeded"
    double.set(retry_after=False)
    assert double.get("/organization/projects").headers["Retry-After"] is None
    time.sleep(1.6)
    double.get("/organization/projects").ok()


def test_latency(double):
    double.set(latency_ms=150)
    began = time.monotonic()
    double.get("/organization/projects").ok()
    assert time.monotonic() - began >= 0.15


def test_other_switches(double):
    made = double.mint()
    double.set(account_key_delete=False, self_delete=False, null_cursors=True, list_needs_any=True, max_name=5)
    double.delete(f"{double.keys}/{made['api_key']['id']}").error(400)
    own = double.get(ADMIN_KEYS).ok()["data"][0]["id"]
    double.delete(f"{ADMIN_KEYS}/{own}").error(400)
    page = double.get(double.accounts).ok()
    assert page["data"] and page["last_id"] is None and page["first_id"] is None
    assert double.get(double.keys).ok()["data"] == []
    assert double.get(double.keys + "?owner_project_access=any").ok()["data"]
    double.post(double.accounts, {"name": "sixsix"}).error(400)
    double.post(double.accounts, {"name": "äöüßé"}).ok()
    double.set(check_organization=True)
    double.get("/organization/projects", headers={"OpenAI-Organization": "org-other"}).error(401)
    double.get("/organization/projects", headers={"OpenAI-Organization": "org-adminsim"}).ok()


def test_an_account_without_key(double):
    made = double.mint(create_service_account_only=True)
    assert made["api_key"] is None
    double.post(double.accounts, {"name": "x", "create_service_account_only": True, "expires_in_seconds": 60}).error(400)


# ---- faults ----


def test_faults_are_ordered_and_used_once(double):
    double.fault(
        {"kind": "status", "status": 503, "method": "DELETE"},
        {"kind": "status", "status": 500, "method": "POST", "path": "*/service_accounts"},
        {"kind": "status", "status": 502, "method": "POST", "times": 2},
        {"kind": "status", "status": 404, "path": "/v1/organization/admin*", "times": -1},
    )
    assert [double.post(double.accounts, {"name": "x"}).status for _ in range(4)] == [500, 502, 502, 200]
    assert double.counters()["faults_pending"] == 2
    assert double.delete(f"{double.accounts}/x").status == 503
    assert [double.get(ADMIN_KEYS).status for _ in range(5)] == [404] * 5
    double.control("DELETE", "faults")
    double.get(ADMIN_KEYS).ok()


@pytest.mark.parametrize("body", ['{"error":"a bare string"}', "<html>", "", '{"error":{"message":"m"}}'])
def test_any_answer(double, body):
    double.fault({"kind": "status", "status": 403, "body": body, "headers": {"Retry-After": "7", "x-request-id": "req_mine"}})
    r = double.get("/organization/projects")
    assert (r.status, r.text.decode(), r.headers["Retry-After"]) == (403, body, "7")
    assert r.headers["x-request-id"] == "req_mine"


@pytest.mark.parametrize("when, alive", [("before", 0), ("after", 1)])
def test_500_before_and_after_the_effect(double, when, alive):
    double.fault({"kind": "status", "status": 500, "when": when})
    double.post(double.accounts, {"name": "x"}).error(500)
    assert double.alive() == alive


@pytest.mark.parametrize("when, alive", [("before", 0), ("after", 1)])
def test_the_reply_is_lost(double, when, alive):
    double.get("/organization/projects").ok()  # so that the connection is a kept one
    double.fault({"kind": "drop", "when": when, "method": "POST"})
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, ssl.SSLEOFError)):
        double.post(double.accounts, {"name": "x"})
    assert double.alive() == alive
    posts = [row for row in double.counters()["by"] if row["method"] == "POST"]
    assert posts == [{"method": "POST", "pattern": "organization/projects/{}/service_accounts", "status": 0, "count": 1}]


def test_truncated(double):
    double.fault({"kind": "truncate"})
    with pytest.raises((http.client.IncompleteRead, ssl.SSLEOFError)) as caught:
        double.post(double.accounts, {"name": "x"})
    if isinstance(caught.value, http.client.IncompleteRead):
        assert caught.value.partial.startswith(b"{") and caught.value.expected
    assert double.alive() == 1


def test_oversized(double):
    double.fault({"kind": "oversize", "bytes": 5_000_000})
    r = double.post(double.accounts, {"name": "x"})
    assert len(r.text) == 5_000_000 and r.json["api_key"]["value"]


def test_not_json_and_deep(double):
    double.fault({"kind": "not_json"}, {"kind": "not_json", "status": 502, "body": "no"}, {"kind": "deep"})
    r = double.post(double.accounts, {"name": "x"})
    assert r.status == 200 and r.text.startswith(b"<html>") and r.headers["Content-Type"] == "text/html"
    assert double.get(double.accounts).text == b"no"
    assert double.get(double.accounts).text == b"[" * 100000 + b"]" * 100000


def test_fields_missing_and_different(double):
    double.fault(
        {"kind": "omit", "fields": ["id", "api_key.value"]},
        {"kind": "omit", "fields": ["api_key"]},
        {"kind": "set", "fields": {"api_key.expires_at": None, "name": 7}},
        {"kind": "omit", "fields": ["data.0.id", "nothing.here"]},
    )
    one, two, three = (double.mint(expires_in_seconds=60) for _ in range(3))
    assert "id" not in one and "value" not in one["api_key"] and one["api_key"]["id"]
    assert "api_key" not in two and two["id"]
    assert three["api_key"]["expires_at"] is None and three["name"] == 7
    page = double.get(double.accounts).ok()["data"]
    assert "id" not in page[0] and page[1]["id"]


def test_redirect_and_hang(double):
    double.fault({"kind": "redirect", "location": "https://example.invalid/"}, {"kind": "hang", "ms": 300})
    r = double.post(double.accounts, {"name": "x"})
    assert r.status == 307 and r.headers["Location"] == "https://example.invalid/"
    assert double.alive() == 0
    began = time.monotonic()
    double.mint()
    assert time.monotonic() - began >= 0.3


def test_a_hang_holds_nobody_else_up(double):
    double.fault({"kind": "hang", "ms": 1500, "when": "after", "method": "POST"})
    waiting = threading.Thread(target=Double(double.service).mint)
    waiting.start()
    wait_for(lambda: double.alive() == 1, 5, "the effect")
    began = time.monotonic()
    double.get("/organization/projects").ok()
    assert time.monotonic() - began < patience(1)
    waiting.join()


def test_a_reset(double):
    double.fault({"kind": "reset", "method": "POST"}, {"kind": "reset", "when": "before", "method": "POST"})
    for alive in (1, 1):
        with pytest.raises(ConnectionResetError):
            double.post(double.accounts, {"name": "x"})
        double.close()
        assert double.alive() == alive


def test_served_twice(double):
    double.fault({"kind": "twice", "method": "POST"}, {"kind": "twice", "reply": "first", "method": "POST"})
    ids = [double.mint("doubled")["id"] for _ in range(2)]
    made = [a["id"] for a in double.all(double.accounts)]
    assert len(made) == 4 and ids == [made[1], made[2]]
    double.fault({"kind": "twice", "method": "DELETE"})
    assert double.delete(f"{double.accounts}/{ids[0]}").status == 404
    assert double.alive() == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hold(double, when):
    double.fault({"kind": "hold", "when": when, "method": "POST"})
    got = []
    waiting = threading.Thread(target=lambda: got.append(Double(double.service).mint()))
    waiting.start()
    wait_for(lambda: double.control("GET", "holds")["held"] == 1, 5, "the hold")
    assert double.alive() == (0 if when == "before" else 1) and not got
    double.control("DELETE", "holds")
    waiting.join(5)
    assert got and double.alive() == 1 and double.control("GET", "holds")["held"] == 0


def test_history(double):
    double.fault({"kind": "drop", "method": "POST"}, {"kind": "status", "method": "DELETE"})
    with pytest.raises((OSError, http.client.HTTPException)):
        double.post(double.accounts, {"name": "lost"})
    double.close()
    lost = double.all(double.accounts)[0]["id"]
    double.delete(f"{double.accounts}/{lost}")
    h = double.control("GET", "history")
    assert [(e["method"], e["status"], e["served"], e.get("made"), e.get("name")) for e in h["history"]] == [
        ("POST", 0, 1, lost, "lost"),
        ("GET", 200, 1, None, None),
        ("DELETE", 500, 0, None, None),
    ]
    assert double.control("GET", "history?from=2") == {"total": 3, "history": h["history"][2:]}


@pytest.mark.parametrize(
    "fault", [{}, [7], {"kind": "no such"}, {"kind": "drop", "when": "now"}, {"kind": "drop", "unknown": 1}, {"kind": "drop", "times": "x"}]
)
def test_bad_faults_are_refused(double, fault):
    status, _ = double.service.request("POST", double.service.control_url + "/faults", fault)
    assert status == 400 and double.counters()["faults_pending"] == 0


def test_bad_settings_are_refused(double):
    for bad in ({"latency_ms": -1}, {"latency_ms": "1"}, {"no_such": 1}, {"expiry": "maybe"}, {"retry_after": 1}):
        status, answer = double.service.request("POST", double.service.control_url + "/settings", bad)
        assert status == 400, bad
        assert list(bad)[0] in answer["error"]["message"]


# ---- looking in ----


def test_state_and_counters(double):
    kept, gone = double.mint("kept", expires_in_seconds=60), double.mint("gone")
    double.delete(f"{double.accounts}/{gone['id']}").ok()
    state = double.control("GET", "state")
    accounts = {a["name"]: a for p in state["projects"] for a in p["service_accounts"]}
    assert accounts["kept"]["alive"] and not accounts["gone"]["alive"]
    assert accounts["kept"]["key_ids"] == [kept["api_key"]["id"]]
    assert kept["api_key"]["value"] not in json.dumps(state)
    alive = double.control("GET", "state?alive=1")
    assert [a["name"] for p in alive["projects"] for a in p["service_accounts"]] == ["kept"]
    assert double.control("GET", f"keys/{kept['api_key']['id']}")["value"] == kept["api_key"]["value"]
    c = double.counters()
    assert (c["accounts_created"], c["accounts_deleted"], c["accounts_alive"], c["accounts_peak"]) == (2, 1, 1, 2)
    assert c["requests"] == 3 and c["in_flight"] == 0
    requests = double.control("GET", "requests")["requests"]
    assert [r["method"] for r in requests] == ["POST", "POST", "DELETE"]
    text = json.dumps(requests)
    assert double.key not in text and "authorization" not in text.lower()


def test_reset(double):
    double.mint()
    double.fault({"kind": "drop"})
    double.set(latency_ms=50)
    double.control("POST", "reset", {"faults": True})
    assert double.alive() == 1 and double.counters()["faults_pending"] == 0
    assert double.control("GET", "settings")["latency_ms"] == 50
    double.control("POST", "reset", {})
    assert double.alive() == 0 and double.counters()["requests"] == 0
    assert double.control("GET", "settings")["latency_ms"] == 0
    assert double.all(double.accounts) == []


def test_others_make_things_too(double):
    double.control("POST", "projects", {"id": "proj_new", "name": "new"})
    foreign = double.control("POST", "service_accounts", {"project": "proj_new", "name": "foreign"})
    assert double.works(foreign["api_key"]["value"])
    double.control("DELETE", f"service_accounts/{foreign['id']}")
    assert not double.works(foreign["api_key"]["value"])
    key = double.control("POST", "admin_keys", {"name": "o", "value": "sk-admin-mine", "owner": "service_account"})
    assert double.get(f"{ADMIN_KEYS}/{key['id']}", key="sk-admin-mine").ok()["owner"]["type"] == "service_account"


def test_control_is_not_on_the_service_port(double):
    double.parts = double.parts._replace(path="")
    double.get("/_control/state").error(404)


def test_64_kept_connections(double):
    failures = []

    def work(n):
        d = Double(double.service)
        try:
            for i in range(10):
                made = d.mint(f"{n}-{i}")
                d.delete(f"{d.accounts}/{made['id']}").ok()
        except BaseException as e:
            failures.append(e)
        barrier.wait()
        d.close()

    barrier = threading.Barrier(65)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    for t in threads:
        t.start()
    barrier.wait(60)
    c = double.counters()
    for t in threads:
        t.join()
    assert not failures
    assert c["accounts_created"] == 640 and c["accounts_alive"] == 0
    assert c["connections_peak"] == 64 and c["connections_total"] == 64


# ---- starting and ending ----


def test_the_state_outlives_it(place):
    s = Service(place, "--state", str(place / "world"))
    d = Double(s)
    kept, gone = d.mint(expires_in_seconds=600), d.mint()
    d.delete(f"{d.accounts}/{gone['id']}").ok()
    d.set(revoke_ms=60000)
    s.stop()
    assert stat.S_IMODE(os.stat(place / "world").st_mode) == 0o600
    again = start(place, "--state", place / "world")
    with again.process:
        try:
            api = AdminApi(again.url, d.key)
            assert [a["id"] for a in api.all(api.accounts)] == [kept["id"]]
            assert api.works(kept["api_key"]["value"]) and not api.works(gone["api_key"]["value"])
            assert again.admin_key == d.key
        finally:
            again.process.terminate()


class Started:
    def __init__(self, process):
        line = json.loads(process.stdout.readline())
        self.process, self.line = process, line
        self.url, self.admin_key = line["url"], line["admin_key"]


def start(place, *options):
    return Started(subprocess.Popen([program("tests", "adminsim", "hsmint-adminsim"), *options], stdout=subprocess.PIPE))


def test_a_state_that_is_none(place):
    (place / "world").write_text('{"projects": []}')
    r = subprocess.run(
        [program("tests", "adminsim", "hsmint-adminsim"), "--state", place / "world"], capture_output=True, text=True, timeout=120
    )
    assert r.returncode == 1 and "world" in r.stderr and not r.stdout


def test_plain_http_says_its_key(place):
    s = start(place, "--owner", "service_account", "--set", "expiry=ignore", "--latency-ms", "1")
    try:
        assert s.url.startswith("http://127.0.0.1:") and s.line["ca_file"] is None
        api = AdminApi(s.url, s.admin_key)
        assert len(s.admin_key) == 164
        key = api.get(f"{ADMIN_KEYS}/{s.line['admin_key_id']}").ok()
        assert key["owner"]["type"] == "service_account"
        assert api.mint(expires_in_seconds=5)["api_key"]["expires_at"] is None
    finally:
        s.process.terminate()
        assert s.process.wait(5) == 0


def test_files_and_their_modes(service):
    assert stat.S_IMODE(os.stat(service.admin_key_file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(service.directory / "server.key").st_mode) == 0o600
    with pytest.raises(ssl.SSLCertVerificationError):
        AdminApi(service.url, service.admin_key).get("/models")
    api = AdminApi(service.url, service.admin_key, service.ca)
    with socket.create_connection((api.parts.hostname, api.parts.port)) as raw:
        with pytest.raises(ssl.SSLCertVerificationError):  # the certificate is for no other name
            api.context.wrap_socket(raw, server_hostname="api.openai.com")
    AdminApi(service.url.replace("127.0.0.1", "localhost"), service.admin_key, service.ca).get("/organization/projects").ok()


@pytest.mark.parametrize(
    "options", [["--port", "x"], ["--port", "65536"], ["--owner", "me"], ["--latency-ms", "-1"], ["--set", "a=1"], ["--set", "a"], ["--no"], ["x"]]
)
def test_bad_options(options):
    r = subprocess.run([program("tests", "adminsim", "hsmint-adminsim"), *options], capture_output=True, text=True, timeout=120)
    assert r.returncode == 2 and r.stderr and not r.stdout


def test_help():
    r = subprocess.run([program("tests", "adminsim", "hsmint-adminsim"), "--help"], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and "--tls DIR" in r.stdout


def test_it_ends_with_its_parent():
    child = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.argv[1], '--parent-death'], stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", child, program("tests", "adminsim", "hsmint-adminsim")], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait(5)

    def gone():
        try:
            return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_for(gone, 5, "the double to end")
