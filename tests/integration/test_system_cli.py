"""What users touch of policies and logins: hsmint and PKCS#11 in system mode."""

import json
import os
import pty
import re
import select
import threading
import time

import pytest

from conftest import SOURCE, program, wait_for
from system import ADMIN, ALICE, BOB, CAROL, DAVE, PAY, system, system_stopped  # noqa: F401 (fixtures)

PAYMENTS = {"subjects": [f"group:{PAY}"], "roles": ["pay-*"], "capabilities": ["caller"]}


@pytest.fixture
def admin(system):  # noqa: F811
    return system.set_up("pay-api", "web")


def fails(agent, status, *words, input=""):
    r = agent.hsmint(*words, input=input)
    assert r["status"] == status, r
    assert r["out"] == "" and r["err"].startswith("hsmint: ") and r["err"].count("\n") == 1, r
    return r["err"]


# ---- policies ----


@pytest.mark.parametrize("name", ["administrator", "operator", "auditor", "caller"])
def test_the_examples_are_policies(admin, name):
    text = (SOURCE / "contrib" / "policies" / f"{name}.json").read_text()
    # In the store it may not be called as the file that the daemon has.
    r = admin.hsmint("policy", "set", f"example-{name}", "-", input=text)
    assert r["status"] == 0, r
    # No warnings but those of groups that this machine does not have.
    assert all("hsmint-" in line or "pay" in line for line in r["err"].splitlines()), r
    stored = json.loads(admin.ok("policy", "show", f"example-{name}", "--json"))
    for member, value in json.loads(text).items():
        assert stored[member] == value or member == "limits"


def test_a_policy_from_fields_is_that_from_a_file(admin):
    fields = ["effect=allow", f"subjects=group:{PAY},user:{CAROL}", "roles=pay-*, web", "capabilities=mint,read"]
    limits = ["max_ttl=1h", "live_leases=20", "mints_per_minute=60", "hours=mon-fri 07:00-19:00,sat 08:00-12:00"]
    admin.ok("policy", "set", "fields", "description=a, b", *fields, *limits)
    shown = json.loads(admin.ok("policy", "show", "fields", "--json"))
    assert shown["subjects"] == [f"group:{PAY}", f"user:{CAROL}"] and shown["roles"] == ["pay-*", "web"]
    assert shown["description"] == "a, b" and shown["limits"]["live_leases"] == 20
    assert shown["limits"]["hours"] == ["mon-fri 07:00-19:00", "sat 08:00-12:00"]
    # What is shown can be set, under another name, and is the same.
    written = {k: v for k, v in shown.items() if k not in ("name", "source", "version", "changed_ms")}
    admin.ok("policy", "set", "file", "-", input=json.dumps(written))
    again = json.loads(admin.ok("policy", "show", "file", "--json"))
    assert {k: v for k, v in again.items() if k in written} == written
    # Written again, it takes the place of the one before as a whole.
    admin.ok("policy", "set", "fields", f"subjects=user:{BOB}", "roles=*", "capabilities=caller")
    assert "limits" not in json.loads(admin.ok("policy", "show", "fields", "--json"))
    listed = admin.ok("policy", "list")
    assert re.search(rf"fields +allow +user:{BOB} ", listed), listed
    assert re.search(r"administrator +allow .* file", listed), listed
    admin.ok("policy", "delete", "fields")
    assert "no policy" in fails(admin, 4, "policy", "show", "fields").lower()


def test_mistakes_are_told_where_they_are(admin):
    path = admin.home / "bad.json"
    for text, words in (
        ('{\n  "subjects": ["user:a"],\n  "roles": [}\n', ["bad.json:3:"]),
        ('{"subjects": ["user:a"], "subjects": []}', ["bad.json:1:", "twice"]),
        ("", ["bad.json:1:"]),
        ("[" * 100, ["bad.json"]),
        (json.dumps({**PAYMENTS, "limits": {"hours": ["daily 07:00-19:00", "always"]}}, indent=1),
         ["bad.json:", ":4: limits.hours[1]: "]),
        ('{\n "subjects": ["user:a"],\n "rols": []}', ["bad.json:3:2: rols: "]),
    ):
        path.write_text(text)
        path.chmod(0o644)
        said = fails(admin, 1, "policy", "set", "p", path)
        assert all(w in said for w in words), said
    for policy, words in (
        ({"subject": []}, ["subject"]),
        ({**PAYMENTS, "limits": {"max_tll": "1h"}}, ["limits.max_tll"]),
        ({**PAYMENTS, "limits": {"max_ttl": "soon"}}, ["limits.max_ttl"]),
        ({**PAYMENTS, "subjects": ["exe:/usr/bin/x"]}, ["subjects", "exe:"]),
        ({**PAYMENTS, "effect": "deny", "limits": {"max_ttl": "1h"}}, ["limits"]),
        ({**PAYMENTS, "capabilities": ["all"]}, ["capabilities", "all"]),
        ([], ["object"]),
    ):
        said = fails(admin, 1, "policy", "set", "p", "-", input=json.dumps(policy))
        assert all(w in said for w in words), (policy, said)
    said = fails(admin, 1, "policy", "set", "administrator", "-", input=json.dumps(PAYMENTS))
    assert "administrator.json" in said
    fails(admin, 1, "policy", "set", "../x", "-", input=json.dumps(PAYMENTS))
    fails(admin, 4, "policy", "set", "p", admin.home / "none.json")
    fails(admin, 2, "policy", "set", "p", "roles=a", "roles=b")
    fails(admin, 2, "policy", "set", "p", "a.json", "b.json")
    assert [p["name"] for p in json.loads(admin.ok("policy", "list", "--json"))] == ["administrator"]


def test_policy_test_for_people_and_programs(admin):
    admin.ok("policy", "set", "pay", "-", input=json.dumps({**PAYMENTS, "limits": {"max_ttl": "1h"}}))
    who = (f"user:{BOB}", f"group:{PAY}")
    assert re.search(r"mint +pay-api +true +pay ", admin.ok("policy", "test", *who))
    asked = ("policy", "test", *who, "--role", "pay-api", "--capability", "mint")
    assert "CONSIDERED" in admin.ok(*asked)
    long = admin.hsmint(*asked, "--ttl", "2h")
    assert long["status"] == 3 and "at most 1h" in long["out"] and long["err"] == ""
    (verdict,) = json.loads(admin.ok(*asked, "--json"))
    assert verdict["allowed"] and verdict["policy"] == "pay" and verdict["considered"]
    assert admin.hsmint("policy", "test", f"user:{CAROL}", "--role", "web", "--capability", "mint")["status"] == 3
    for words in (["alice"], ["uid:5"], ["user:"], ["user:a", "user:b"]):
        fails(admin, 2, "policy", "test", *words)
    fails(admin, 1, "policy", "test", "user:a", "--capability", "everything")


def test_only_its_own_may(system, admin):  # noqa: F811
    alice = system.agent("alice", ALICE)
    for words in (
        ["policy", "list"],
        ["policy", "show", "administrator"],
        ["policy", "set", "p", "subjects=user:a"],
        ["policy", "delete", "administrator"],
        ["policy", "test", "user:a"],
        ["login", "list"],
        ["login", "create", "x"],
        ["login", "rotate", "x"],
        ["login", "delete", "x"],
        ["status"],
        ["lock"],
    ):
        fails(alice, 3, *words)
    assert "No policy lets you do anything" in alice.ok("whoami")


# ---- logins ----


def test_a_login_lives(system, admin):  # noqa: F811
    admin.ok("policy", "set", "batch", "subjects=login:batch", "roles=pay-*", "capabilities=caller")
    r = admin.hsmint("login", "create", "batch", "--uses", "9", "--ttl", "1d")
    assert r["status"] == 0
    # Alone on a line, so that it can be piped; the rest is told beside.
    assert re.fullmatch(r"batch\.[a-z2-7]{52}\n", r["out"], re.I), r["out"]
    assert "accessor" in r["err"] and "9 logins" in r["err"] and r["out"].strip() not in r["err"]
    dave = system.agent("dave", DAVE)
    dave.login = None
    (file := dave.home / "id").write_text(r["out"])
    file.chmod(0o600)
    os.chown(file, DAVE, -1)
    by_name = ("--login", "batch", "--secret-id-file", file)
    assert "login:batch" in dave.ok("whoami", *by_name)
    assert "login:batch" in dave.ok("whoami", "--secret-id-file", file)
    minted = json.loads(dave.ok("mint", "pay-api", "--json", *by_name))
    lease = json.loads(dave.ok("lease", "show", minted["lease_id"], "--json", *by_name))
    assert lease["owner"] == "login:batch"
    assert dave.hsmint("lease", "show", minted["lease_id"])["status"] in (3, 4)
    shown = json.loads(admin.ok("login", "show", "batch", "--json"))
    assert shown["secrets"][0]["uses_left"] == 5 and r["out"].strip() not in json.dumps(shown)
    assert re.search(r"batch +1 ", admin.ok("login", "list"))
    # A second secret id; the first goes on for the overlap.
    new = admin.ok("login", "rotate", "batch", "--overlap", "1h").strip()
    assert "login:batch" in dave.ok("whoami", *by_name)
    assert "login:batch" in dave.hsmint("whoami", "--login", "batch", "--secret-id-file", "-", input=new)["out"]
    newest = json.loads(admin.ok("login", "rotate", "batch", "--overlap", "0", "--json"))["secret_id"]
    assert "secret" in fails(dave, 3, "whoami", *by_name)
    admin.ok("login", "delete", "batch")
    fails(dave, 3, "whoami", "--login", "batch", "--secret-id-file", "-", input=newest)
    assert service_alive(system) == 1


def service_alive(system):  # noqa: F811
    return system.service.alive()


def test_secret_ids_are_kept_from_others(system, admin):  # noqa: F811
    secret = admin.ok("login", "create", "batch")
    dave = system.agent("dave", DAVE)
    file = dave.home / "id"
    file.write_text(secret)
    file.chmod(0o644)
    assert "chmod" in fails(dave, 3, "whoami", "--login", "batch", "--secret-id-file", file)
    fails(dave, 3, "whoami", "--login", "batch")  # nobody to ask
    fails(dave, 1, "whoami", "--login", "batch", "--secret-id-file", "-", input="")
    said = fails(dave, 3, "whoami", "--login", "batch", "--secret-id-file", "-", input="nonsense")
    assert "nonsense" not in said and "login create" in said
    # A wrong one and one of nobody are told apart by nothing.
    wrong = "a" * 52
    said = fails(dave, 3, "whoami", "--login", "batch", "--secret-id-file", "-", input=wrong)
    unknown = fails(dave, 3, "whoami", "--login", "nobody", "--secret-id-file", "-", input=wrong)
    assert unknown.replace("nobody", "batch") == said and wrong not in said


def test_a_secret_id_is_typed_without_echo(system, admin):  # noqa: F811
    secret = admin.ok("login", "create", "batch").strip().encode()
    words = [str(program("hsmint")), "--login", "batch", "whoami"]
    pid, fd = pty.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(DAVE, DAVE, DAVE)
        os.setresuid(DAVE, DAVE, DAVE)
        os.execve(words[0], words, {"HSMINT_SOCKET": str(system.socket), "HSMINT_CONFIG": "/nonexistent"})
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
        if not sent and screen.endswith(b"Secret id of batch: "):
            os.write(fd, secret + b"\n")
            sent = True
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 0, screen
    assert b"login:batch" in screen and secret not in screen


# ---- PKCS#11 ----


def test_policies_are_written_read_and_deleted_by_pkcs11_tool(system, admin):  # noqa: F811
    file = admin.home / "policy.json"
    file.write_text(json.dumps(PAYMENTS))
    file.chmod(0o644)
    which = ("--type", "data", "--application-label", "hsmint:policy", "--label", "pay")
    r = admin.pkcs11_tool("--write-object", file, *which)
    assert r["status"] == 0, r
    assert json.loads(admin.ok("policy", "show", "pay", "--json"))["subjects"] == PAYMENTS["subjects"]
    read = json.loads(admin.pkcs11_tool("--read-object", *which)["out"])
    assert read["roles"] == ["pay-*"] and "name" not in read and "source" not in read
    assert "hsmint:policy" in admin.pkcs11_tool("-O")["out"]
    alice = system.agent("alice", ALICE)
    assert "hsmint:policy" not in alice.pkcs11_tool("-O")["out"]
    file = alice.home / "policy.json"
    file.write_text(json.dumps(PAYMENTS))
    file.chmod(0o644)
    assert alice.pkcs11_tool("--write-object", file, *which)["status"] != 0
    file.write_text('{"subjects": }')
    assert admin.pkcs11_tool("--write-object", file, *which)["status"] != 0
    assert admin.pkcs11_tool("--delete-object", *which)["status"] == 0
    assert admin.hsmint("policy", "show", "pay")["status"] == 4


def test_login_user_by_name_and_by_the_whole(system, admin):  # noqa: F811
    admin.ok("policy", "set", "batch", "subjects=login:batch", "roles=pay-*", "capabilities=caller")
    whole = admin.ok("login", "create", "batch").strip()
    name, part = whole.split(".")
    dave = system.agent("dave", DAVE)
    for log_in in (f"loginuser {name} {part}", f"loginuser {name} {whole}", f"login {whole}"):
        text = "\n".join(["open", log_in, "mint pay-api token 0", "mint web token 0", "exit", ""])
        r = dave.run(program("tests", "integration", "p11client"), system.so, input=text)
        opened, logged_in, minted, refused, _ = r["out"].splitlines()
        assert logged_in.startswith("ok") and minted.startswith("ok"), (log_in, r)
        assert refused == "0x200", refused  # CKR_FUNCTION_REJECTED
    owners = {lease["owner"] for lease in leases_of(system, dave, whole)}
    assert owners == {"login:batch"}
    a = "a" * 52
    wrong = "\n".join(["open", f"loginuser {name} {a}", f"loginuser nobody {a}", "exit", ""])
    r = dave.run(program("tests", "integration", "p11client"), system.so, input=wrong)
    assert r["out"].splitlines()[1:3] == ["0xa0", "0xa0"]  # CKR_PIN_INCORRECT, both


def leases_of(system, agent, secret_id):  # noqa: F811
    agent.log_in("batch", secret_id)
    return agent.call("ListLeases")["leases"]


def test_a_login_outlives_the_daemon(system, admin):  # noqa: F811
    """As long as it is one; then what was meant by its name is not done as the uid
    beside it."""
    admin.ok("policy", "set", "all", f"subjects=login:batch,login:next,user:{DAVE}", "roles=*", "capabilities=caller")
    secret = admin.ok("login", "create", "batch", "--uses", "1").strip()
    dave = system.agent("dave", DAVE)
    client = dave_client(system, dave)
    assert client("open") == client(f"login {secret}") == "ok "
    handles = [client("mint pay-api bound 0")]
    for leave in (system.kill, system.stop, system.kill):
        leave()
        system.start()
        handles.append(client("mint pay-api bound 0"))
    assert all(h.startswith("ok ") for h in handles), handles
    assert len([r for r in system.records() if r.get("entrance") == "resumed"]) == 3
    time.sleep(11)  # the grace is over: what is bound to the session lives on
    for handle in handles:
        assert client(f"read {handle.split()[1]}").startswith("ok sk-")
    assert system.service.alive() == len(handles)
    system.stop()
    system.start()
    admin.ok("login", "delete", "batch")
    assert client("mint pay-api token 0") == "0x101"  # CKR_USER_NOT_LOGGED_IN
    assert "batch" in client("why")
    again = admin.ok("login", "create", "next").strip()
    assert client("mint pay-api token 0") == "0x101"
    assert client(f"login {again}") == "ok "
    assert client("mint pay-api token 0").startswith("ok")
    client.end()
    owners = [json.loads(dave.ok("lease", "list", "--json"))]
    assert owners == [[]]


def test_a_command_by_name_survives_a_restart(system, admin):  # noqa: F811
    admin.ok("policy", "set", "batch", "subjects=login:batch", "roles=pay-*", "capabilities=caller")
    dave = system.agent("dave", DAVE)
    dave.log_in("batch", admin.ok("login", "create", "batch").strip())
    asked = system.service.control("counters")["requests"]
    system.service.control("settings", {"latency_ms": 400})
    got = []
    thread = threading.Thread(target=lambda: got.append(dave.hsmint("mint", "pay-api", "--json")))
    thread.start()
    wait_for(lambda: system.service.control("counters")["requests"] > asked, 10, "the request")
    system.kill()
    system.service.control("settings", {"latency_ms": 0})
    system.start()
    thread.join()
    assert got[0]["status"] == 0, got
    lease = json.loads(dave.ok("lease", "show", json.loads(got[0]["out"])["lease_id"], "--json"))
    assert lease["owner"] == "login:batch"
    wait_for(lambda: system.service.alive() == 1, 15, "one account")


def dave_client(system, agent):  # noqa: F811
    """p11client as this agent's user, line by line."""
    import subprocess

    process = subprocess.Popen(
        [program("tests", "integration", "p11client"), system.so],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=agent.env,
        user=agent.uid,
        group=agent.uid,
        extra_groups=[],
    )

    def ask(line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline().rstrip("\n")

    def end():
        process.stdin.close()
        process.wait(10)

    ask.end = end
    return ask
