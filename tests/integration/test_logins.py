"""Named logins: the whole way from a secret id to a lease and its end, with a real
daemon, keeper and HSM, sockets of several users, and a daemon that is killed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
import time

import pytest

from conftest import as_uid, not_sanitized, only_root_looks, others_can_run, patience, program, wait_for
from varlink import Connection, Error, request_id

ALICE, BOB = 61001, 61002
SECRET_ID = re.compile(rb"[A-Za-z0-9._-]+\.[a-z2-7]{52}")
WRONG = b"batch." + b"a" * 52


def refused(expected, function, *args, **parameters):
    with pytest.raises(Error) as e:
        function(*args, **parameters)
    assert e.value.name == expected, e.value
    return e.value


def create(daemon, name="batch", **fields):
    with daemon.attached() as c:
        reply = c.change("CreateLogin", name=name, fields=fields)
        assert SECRET_ID.fullmatch(reply.secret)
        return reply.secret


def login(c, secret, **parameters):
    if "name" not in parameters:
        parameters["kind"] = "secret-id"  # in user mode it could be the HSM's PIN
    return c.call("Login", secret=secret, **parameters)


def mint(c, **parameters):
    return c.change("Mint", role="my-app", **parameters)["lease"]


def records(daemon, kind, entrance=None):
    with contextlib.closing(sqlite3.connect(daemon.state / "store.db")) as db:
        lines = [json.loads(line) for (line,) in db.execute("SELECT line FROM record ORDER BY sequence")]
    return [r for r in lines if r["kind"] == kind and entrance in (None, r.get("entrance"))]


# ---- the application's login ----


def test_leases_are_the_logins(ready):
    secret = create(ready)
    with ready.attached() as c, ready.attached() as other:
        assert login(c, secret) == {"login": "batch"}
        lease = mint(c)
        assert lease["owner"] == "login:batch"
        # To the same uid without the login it is somebody else's.
        assert other.call("ListLeases")["leases"] == []
        assert [row["lease_id"] for row in c.call("ListLeases")["leases"]] == [lease["lease_id"]]
        with ready.attached(token=c.token) as joined:
            assert joined.call("GetLease", lease_id=lease["lease_id"])["lease"]["owner"] == "login:batch"
        # By its name, with what stands behind the dot; as another, not.
        assert login(other, secret.split(b".")[1], name="batch") == {"login": "batch"}
        other.change("Revoke", lease_id=lease["lease_id"])
        refused("PinWrong", login, c, secret, name="other")
        assert mint(c)["owner"] == "login:batch"  # a failed login changes nothing
        refused("PinWrong", c.call, "Login", secret=b"0000")  # the HSM's PIN, as whom the socket shows
        assert mint(c)["owner"] == "login:batch"
        c.call("Logout")
        assert mint(c)["owner"] == f"user:{os.getuid()}"
        assert other.call("Logout") == {} and mint(other)["owner"] == f"user:{os.getuid()}"
    assert [r["name"] for r in records(ready, "login", "secret-id")] == ["batch", "batch"]


def test_a_secret_id_is_nowhere(ready):
    secret = create(ready)
    with ready.attached() as c:
        login(c, secret)
        refused("PinWrong", login, c, b"batch." + secret[::-1][:52])
    ready.stop()
    random = secret.split(b".")[1]
    for file in (*ready.state.iterdir(), ready.log_file):
        if file.is_file():
            assert random not in file.read_bytes(), file
            assert random[::-1] not in file.read_bytes(), file


def test_a_deleted_login_ends_at_the_next_call(ready):
    secret = create(ready)
    with ready.attached() as admin, ready.attached() as c:
        login(c, secret)
        lease = mint(c)
        admin.change("DeleteLogin", name="batch")
        assert "deleted" in refused("NotLoggedIn", c.change, "Mint", role="my-app").text
        refused("NotLoggedIn", c.call, "ListLeases")
        c.call("Slots")  # needs nothing
        assert refused("PinWrong", login, c, secret).text
        refused("NotLoggedIn", c.call, "ListLeases")  # a failed login changes nothing
        # Its leases live on, and are nobody's who gets its name.
        assert admin.call("ListLeases", all=True)["leases"][0]["lease_id"] == lease["lease_id"]
        assert "live on" in refused("Exists", admin.change, "CreateLogin", name="batch", fields={}).text
        admin.change("Revoke", lease_id=lease["lease_id"])
        create(ready)  # of the same name, but another
        refused("NotLoggedIn", c.call, "ListLeases")
        c.call("Logout")
        assert c.call("ListLeases")["leases"] == []


def test_rotation_without_downtime(ready):
    one = create(ready)
    with ready.attached() as admin, ready.attached() as c, ready.attached() as d:
        login(c, one)
        two = admin.change("RotateLogin", name="batch", fields={"overlap": 2}).secret
        login(d, two)
        mint(c), mint(d)
        wait_for(lambda: answers_not_logged_in(c), 10, "the overlap to end")
        mint(d)
        refused("PinWrong", login, c, one)
        time.sleep(0.2)
        login(c, two)
        shown = admin.call("GetLogin", name="batch")["login"]
        assert "hmac" not in json.dumps(shown) and len(shown["secrets"]) == 2
        assert shown["secrets"][1]["last_used_ms"] >= shown["secrets"][0]["last_used_ms"]
        assert [entry["name"] for entry in admin.call("ListLogins")["logins"]] == ["batch"]


def answers_not_logged_in(c):
    try:
        c.call("ListLeases")
        return False
    except Error as e:
        assert e.name == "NotLoggedIn", e
        return True


# ---- a daemon that dies ----


def test_uses_survive_a_kill(ready):
    secret = create(ready, uses=3)
    for left in (2, 1, 0):
        with ready.attached() as c:
            login(c, secret)
        ready.kill()
        ready.start()
        with ready.attached() as c:
            assert c.call("GetLogin", name="batch")["login"]["secrets"][0]["uses_left"] == left
    with ready.attached() as c:
        assert "as often as it may" in refused("PinWrong", login, c, secret).text


def held(daemon):
    """Hashes of the applications that hold a login on disk."""
    with contextlib.closing(sqlite3.connect(daemon.state / "store.db")) as db:
        return {name for (name,) in db.execute("SELECT name FROM document WHERE kind = 'held'")}


def hash_of(token):
    return hashlib.sha256(bytes.fromhex(token)).hexdigest()


def test_an_application_has_its_login_after_a_restart(ready):
    secret = create(ready, uses=3)
    with ready.attached() as c, ready.attached() as absent, ready.attached() as out:
        for each in (c, absent, out):
            login(each, secret)
        bound, token = mint(c, bound=True)["lease_id"], c.token
        out.call("Logout")
        assert held(ready) == {hash_of(token), hash_of(absent.token)}
        ready.kill()
    ready.start()
    with ready.connect() as c, ready.connect() as d, ready.connect() as e:
        refused("NotFound", e.attach, token=out.token)
        # Two connections of it at once.
        joining = [threading.Thread(target=x.attach, kwargs={"token": token}) for x in (c, d)]
        for t in joining:
            t.start()
        for t in joining:
            t.join()
        assert mint(c)["owner"] == mint(d)["owner"] == "login:batch"
        assert c.call("GetLogin", name="batch")["login"]["secrets"][0]["uses_left"] == 0
        assert [r["name"] for r in records(ready, "login", "resumed")] == ["batch"]
        time.sleep(11)  # beyond the grace, in which it came back and another did not
        assert c.call("GetLease", lease_id=bound)["lease"]["state"] == "active"
        wait_for(lambda: held(ready) == {hash_of(token)}, 10, "the absent one's login to end")
        refused("NotFound", e.attach, token=absent.token)
    wait_for(lambda: not held(ready), 10, "the login to end with its application")


def test_a_login_that_ended_meanwhile_does_not_come_back(ready):
    secret = create(ready)
    with ready.attached() as c:
        login(c, secret)
        token = c.token
        ready.kill()
    ready.start()
    with ready.connect() as c, ready.attached() as admin:
        admin.change("DeleteLogin", name="batch")
        create(ready)  # another of that name
        c.attach(token=token)
        # Neither as the login nor silently as the uid.
        refused("NotLoggedIn", c.change, "Mint", role="my-app")
        refused("NotLoggedIn", c.call, "ListLeases")
        assert records(ready, "login", "resumed") == []
        c.call("Logout")
        assert mint(c)["owner"] == f"user:{os.getuid()}"


def test_a_login_whose_answer_was_lost(ready):
    """The daemon dies right after the commit: the client asks again, and is in."""
    secret = create(ready, uses=1)
    with ready.attached() as c:
        login(c, secret)  # as if the answer had not come
        token = c.token
        ready.kill()
    ready.start()
    with ready.connect() as c, ready.attached() as other:
        c.attach(token=token)
        assert login(c, secret) == {"login": "batch"}
        assert mint(c)["owner"] == "login:batch"
        refused("PinWrong", login, other, secret)


def test_an_answer_that_was_lost(ready):
    """The same request again: there is one secret, and the newest answer has it."""
    same = request_id()
    with ready.attached() as c:
        one = c.call("CreateLogin", name="batch", fields={}, request_id=same).secret
        two = c.call("CreateLogin", name="batch", fields={}, request_id=same).secret
        assert len(c.call("GetLogin", name="batch")["login"]["secrets"]) == 1
        login(c, two)
        refused("PinWrong", login, c, one)
        refused("Exists", c.change, "CreateLogin", name="batch", fields={})


# ---- several users ----


@pytest.fixture
def shared(ready):
    """A system daemon with a login, made while it was a user's."""
    only_root_looks()
    ready.secret = create(ready)
    ready.stop()
    ready.settings["daemon"]["mode"] = "system"
    ready.place.chmod(0o755)
    ready.run.chmod(0o755)
    return ready.start("--system")


POLICIES = {
    "ops": {"subjects": ["login:ops"], "capabilities": ["administrator"]},
    "batch": {"subjects": ["login:batch"], "roles": ["my-app"], "capabilities": ["caller"]},
    "not-bob": {
        "effect": "deny",
        "subjects": [f"user:{BOB}"],
        "roles": ["*"],
        "capabilities": ["mint"],
    },
}


@pytest.fixture
def governed(ready):
    """A system daemon with policies in files, and the logins ops and batch."""
    only_root_looks()
    ready.ops, ready.secret = create(ready, "ops"), create(ready)
    ready.stop()
    policies = ready.place / "policies.d"
    policies.mkdir()
    for name, policy in POLICIES.items():
        (policies / f"{name}.json").write_text(json.dumps(policy))
        (policies / f"{name}.json").chmod(0o644)
    ready.settings["daemon"]["mode"] = "system"
    ready.settings["daemon"]["policies_dir"] = policies
    ready.place.chmod(0o755)
    ready.run.chmod(0o755)
    return ready.start("--system")


def answer(path, secret, method, so=False, **parameters):
    """What a method says to an application that logged in: its error's name, or its reply."""
    with Connection(path) as c:
        c.attach()
        try:
            c.call("Login", secret=secret, so=so)
            return c.call(method, **parameters)
        except Error as e:
            return e.name


def test_an_administrator_by_login(governed):
    path, ops, batch = governed.socket, governed.ops, governed.secret
    fields = {"name": "more", "fields": {}, "request_id": request_id()}
    assert as_uid(ALICE, lambda: answer(path, batch, "ListLogins")) == "Denied"
    assert as_uid(ALICE, lambda: answer(path, batch, "ListLogins", so=True)) == "Denied"
    assert as_uid(ALICE, lambda: answer(path, None, "ListLogins", so=True)) == "Denied"
    listed = as_uid(ALICE, lambda: answer(path, ops, "ListLogins", so=True))
    assert [entry["name"] for entry in listed["logins"]] == ["batch", "ops"]
    # Root is nobody without a login, and one with it.
    assert answer(path, None, "CreateLogin", **fields) == "Denied"
    assert answer(path, ops, "CreateLogin", **fields)["login"]["name"] == "more"
    # Duties do not overlap.
    assert as_uid(ALICE, lambda: answer(path, ops, "Mint", role="my-app", request_id=request_id())) == "Denied"


def test_a_login_is_what_policies_say_of_it(governed):
    path, batch = governed.socket, governed.secret

    def minting(secret):
        reply = answer(path, secret, "Mint", role="my-app", request_id=request_id())
        return reply if isinstance(reply, str) else reply["lease"]["owner"]

    assert as_uid(ALICE, lambda: minting(batch)) == "login:batch"
    assert as_uid(ALICE, lambda: minting(None)) == "Denied"
    # Denials go by everything that is known.
    assert as_uid(BOB, lambda: minting(batch)) == "Denied"
    assert minting(batch) == "login:batch"


def test_another_login_is_another_owner(governed):
    path, ops, batch = governed.socket, governed.ops, governed.secret
    with governed.attached() as c:
        login(c, batch)
        mine = mint(c, bound=True)["lease_id"]
        token = c.token
        assert c.call("WhoAmI")["identity"]["owner"] == "login:batch"
        # The same application as somebody else: the lease is not that one's.
        login(c, ops)
        refused("NotFound", c.call, "GetLease", lease_id=mine)
        c.call("Logout")
        refused("NotFound", c.call, "GetLease", lease_id=mine)
        login(c, batch)
        assert c.call("GetLease", lease_id=mine)["lease"]["state"] == "active"
        governed.kill()
    governed.start("--system")
    with governed.connect() as c:
        assert c.attach(token=token)["login"] == "batch"
        assert c.call("GetLease", lease_id=mine)["lease"]["state"] == "active"
        login(c, ops)
        refused("NotFound", c.call, "GetLease", lease_id=mine)
        # Refused as administrator it has what it had before, also on disk.
        refused("Denied", login, c, batch, so=True)
        governed.kill()
    governed.start("--system")
    with governed.connect() as c:
        assert c.attach(token=token)["login"] == "ops"


def test_root_of_a_container_is_bound_by_no_uid(governed):
    """uid ALICE in a pid namespace that shares our user namespace: nothing vouches."""
    path = governed.socket
    with governed.attached() as c:
        login(c, governed.ops)
        bound = c.change("CreateLogin", name="bound", fields={"uids": [ALICE]}).secret

    def contained():
        if not hasattr(os, "unshare"):
            import ctypes

            if ctypes.CDLL(None).unshare(0x20000000):
                return "no pid namespace"
        else:
            os.unshare(os.CLONE_NEWPID)
        return "in"

    def inside():
        r, w = os.pipe()
        if contained() != "in":
            return "no pid namespace"
        if os.fork() == 0:
            os.setresgid(ALICE, ALICE, ALICE)
            os.setresuid(ALICE, ALICE, ALICE)
            os.write(w, json.dumps(attempt(path, bound)).encode())
            os._exit(0)
        os.wait()
        return json.loads(os.read(r, 4096))

    outcome = as_uid(0, inside)
    if outcome == "no pid namespace":
        pytest.skip(outcome)
    assert outcome[0] == "Denied" and "vouches" in outcome[1], outcome
    assert as_uid(ALICE, lambda: attempt(path, bound)[0]) == "bound"
    assert as_uid(BOB, lambda: attempt(path, bound)[0]) == "Denied"


def run_as(uid, *command, **environment):
    """(exit status, output) of a program of that user's."""

    def call():
        r = subprocess.run(
            [str(c) for c in command],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return r.returncode, r.stdout + r.stderr

    return as_uid(uid, call)


def test_through_the_command_line(governed):
    others_can_run("hsmint", ALICE)
    files = governed.place / "secrets"
    files.mkdir(mode=0o755)

    def keep(name, secret, uid):
        (files / name).write_bytes(secret + b"\n")
        (files / name).chmod(0o600)
        os.chown(files / name, uid, uid)
        return files / name

    ops, batch = keep("ops", governed.ops, ALICE), keep("batch", governed.secret, ALICE)
    hsmint = (program("hsmint"), "--socket", governed.socket)
    code, text = run_as(ALICE, *hsmint, "--login", "batch", "--secret-id-file", batch, "whoami", "--json")
    assert code == 0, text
    assert json.loads(text)["owner"] == "login:batch"
    code, text = run_as(ALICE, *hsmint, "--secret-id-file", ops, "login", "create", "web", "--uses", "1", "--uid", str(BOB))
    assert code == 0 and SECRET_ID.match(text.encode()), text
    web = keep("web", text.split()[0].encode(), BOB)
    code, text = run_as(BOB, *hsmint, "--login", "web", "--secret-id-file", web, "whoami")
    assert code == 0 and "login:web" in text, text
    code, text = run_as(BOB, *hsmint, "--login", "web", "--secret-id-file", web, "whoami")
    assert code == 3 and "as often as it may" in text, text
    code, text = run_as(ALICE, *hsmint, "--secret-id-file", batch, "login", "list")
    assert code == 3, text


def test_through_pkcs11(governed):
    not_sanitized("pkcs11-tool has no sanitizer to load it with")
    if not shutil.which("pkcs11-tool"):
        pytest.skip("pkcs11-tool is not installed")
    module = governed.place / "module.so"
    shutil.copy(program("module", "pkcs11", ".libs", "hsmint-pkcs11.so"), module)
    tool = ("pkcs11-tool", "--module", module, "--login", "--pin")
    mint_it = ("--keygen", "--key-type", "GENERIC:32", "--label", "my-app", "--extractable")
    environment = {"HSMINT_SOCKET": str(governed.socket)}
    code, text = run_as(ALICE, *tool, governed.secret.decode(), *mint_it, **environment)
    assert code == 0 and "Secret Key Object" in text, text
    wait_for(lambda: records(governed, "login")[-1]["name"] == "batch", 5, "the record")
    code, text = run_as(ALICE, *tool, WRONG.decode(), *mint_it, **environment)
    assert code != 0 and "CKR_PIN_INCORRECT" in text, text
    code, text = run_as(ALICE, *tool, governed.secret.decode(), *mint_it, **environment)
    assert "CKR_PIN_LOCKED" in text or code == 0, text
    # As the security officer only a login that may administer.
    role = governed.place / "role.json"
    role.write_text(json.dumps({"project_id": "proj_abc"}))
    role.chmod(0o644)
    write = ("--write-object", role, "--type", "data", "--application-label", "hsmint:role", "--label", "more")
    for secret, may in ((governed.secret, False), (governed.ops, True)):
        so = ("--login-type", "so", "--so-pin", secret.decode())
        code, text = run_as(BOB, *tool[:4], *so, *write, **environment)
        assert (code == 0) == may, text


def attempt(path, secret, **parameters):
    """One login on a connection of its own: (name, text, retry_after_ms)."""
    with Connection(path) as c:
        c.attach()
        try:
            return c.call("Login", secret=secret, **parameters)["login"], "", 0
        except Error as e:
            return e.name, e.text, e.parameters.get("retry_after_ms", 0)


def test_wrong_ones_hold_up_nobody_else(shared):
    path, good = shared.socket, shared.secret
    waits = []

    def guess():
        for _ in range(40):
            name, text, wait = attempt(path, WRONG)
            if name == "PinHeld":
                waits.append(wait)
                if wait > 60000:
                    return waits
                time.sleep(wait / 1000)
        return f"no end: {waits} {name} {text}"

    def honest():
        took = []
        for _ in range(30):
            before = time.monotonic()
            name, text, _ = attempt(path, good)
            assert name == "batch", (name, text)
            took.append(time.monotonic() - before)
            time.sleep(0.5)
        return max(took)

    results = {}
    threads = [
        threading.Thread(target=lambda: results.update(alice=as_uid(ALICE, guess))),
        threading.Thread(target=lambda: results.update(bob=as_uid(BOB, honest))),
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert isinstance(results["bob"], float) and results["bob"] < 2, results
    waits = results["alice"]
    assert isinstance(waits, list), waits
    # Doubling to five seconds (to the millisecond: test_logins of the unit tests), then held.
    assert waits[-1] > 290_000 and all(w <= 5000 for w in waits[:-1]), waits
    assert waits[0] <= 400 and max(waits[:-1]) > 4000, waits
    # The right one is not looked at either, and what was held is not recorded.
    assert as_uid(ALICE, lambda: attempt(path, good)[0]) == "PinHeld"
    failed = records(shared, "login-failed")
    assert len(failed) == 10 and all(f"user:{ALICE}" in json.dumps(r) for r in failed)
    assert failed[-1]["in_a_row"] == 10


def test_unknown_says_the_same(shared):
    wrong = as_uid(ALICE, lambda: attempt(shared.socket, WRONG))
    unknown = as_uid(BOB, lambda: attempt(shared.socket, b"nobody." + b"a" * 52))
    assert wrong == unknown and wrong[0] == "PinWrong"


def test_half_a_secret_id_holds_nobody_up(shared):
    """Pipes whose writers stay, files, sockets: refused at once, by all workers."""
    path, good = shared.socket, shared.secret

    def hold():
        ends = []
        names = set()
        for _ in range(60):
            r, w = os.pipe()
            os.write(w, b"batch.")
            ends.append(w)
            with Connection(path) as c:
                c.attach()
                c.send({"method": "org.hsmint.Login", "parameters": {}}, [r])
                names.add(c.receive()[0].get("error"))
            os.close(r)
        return sorted(names)

    before = time.monotonic()
    assert as_uid(ALICE, hold) == ["org.hsmint.Invalid"]
    assert time.monotonic() - before < patience(10)
    assert as_uid(BOB, lambda: attempt(path, good)[0]) == "batch"
    assert as_uid(ALICE, lambda: attempt(path, good)[0]) == "batch"


def test_the_hsms_pin_is_no_users_to_try(shared):
    path = shared.socket
    for pin in (b"271828", b"000000"):
        name, text, _ = as_uid(BOB if pin[:1] == b"2" else ALICE, lambda: attempt(path, pin))
        assert name == "PinWrong" and "secret id" in text
    time.sleep(0.2)
    assert as_uid(BOB, lambda: attempt(path, b"271828", force=True)[0]) == "Denied"
    assert as_uid(BOB, lambda: attempt(path, None, so=True)[0]) == "Denied"
    name, text, _ = as_uid(BOB, lambda: attempt(path, shared.secret, so=True))
    assert name == "Denied" and "login:batch" in text
    assert as_uid(BOB, lambda: attempt(path, None)[0]) == ""


def test_a_connection_speaks_for_who_connected(shared):
    """Passed on to another user, it is its connector's; a named login goes along,
    which the one who has the connection could have used as well."""

    def who(c):
        with pytest.raises(Error) as e:
            c.call("Status")
        return e.value.text

    def passed_on():
        ours, theirs = socket.socketpair()
        c = Connection(shared.socket)
        c.attach()
        if os.fork() == 0:
            try:
                ours.close()
                _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
                c.sock = socket.socket(fileno=fds[0])
                c.sock.settimeout(60)
                theirs.sendall(who(c).encode())
            except BaseException as e:  # told to the test
                theirs.sendall(repr(e).encode())
            finally:
                os._exit(0)
        socket.send_fds(ours, [b"x"], [c.sock.fileno()])
        theirs.close()
        text = ours.recv(4096).decode()
        os.wait()
        return text

    assert f"user:{ALICE}" in as_uid(ALICE, passed_on)


def test_a_token_is_of_no_use_to_another_uid(shared):
    path = shared.socket
    with shared.attached() as c:
        login(c, shared.secret)
        token = c.token

        def join():
            with Connection(path) as other:
                try:
                    return other.attach(token=token)["login"]
                except Error as e:
                    return e.name

        assert as_uid(ALICE, join) == "NotFound"
        shared.kill()
    shared.start("--system")
    # The first to come after a restart is nobody either, and takes nothing away.
    assert as_uid(ALICE, join) == "NotFound"
    with shared.connect() as c:
        assert c.attach(token=token)["login"] == "batch"
        assert as_uid(ALICE, join) == "NotFound"
    assert [r["name"] for r in records(shared, "login", "resumed")] == ["batch"]
