"""Who may do what, asked of a system daemon by other uids over its socket."""

import json
import pathlib
import signal
import sqlite3
import threading

import pytest

from conftest import as_uid, wait_for
from varlink import Error

ADMIN, AUDITOR, ALICE, BOB = 64101, 64102, 64103, 64104


def policy(*subjects, effect="allow", **more):
    return {"subjects": list(subjects), "effect": effect, **more}


def put(system, name, body):
    path = system.policies / f"{name}.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    path.chmod(0o644)
    return path


@pytest.fixture
def system(bare):
    """A system daemon whose administrator and auditor are told by files."""
    bare.policies = bare.place / "policies.d"
    bare.policies.mkdir(mode=0o755)
    bare.settings["daemon"] |= {"mode": "system", "policies_dir": bare.policies}
    put(bare, "admin", policy(f"user:{ADMIN}", capabilities=["administrator"]))
    put(bare, "audit", policy(f"user:{AUDITOR}", capabilities=["auditor"]))
    bare.place.chmod(0o755)
    bare.run.chmod(0o755)
    bare.start("--system")
    return bare


def call(system, uid, method, change=False, **parameters):
    """(reply, None) or (None, [name, text]) of one call of that uid."""

    def ask():
        with system.attached() as c:
            try:
                reply = (c.change if change else c.call)(method, **parameters)
                return [reply if isinstance(reply, dict) else {}, None]
            except Error as e:
                return [None, [e.name, e.text]]

    return as_uid(uid, ask)


def done(system, uid, method, **parameters):
    reply, error = call(system, uid, method, **parameters)
    assert error is None, error
    return reply


def refused(system, uid, method, expected="Denied", **parameters):
    reply, error = call(system, uid, method, **parameters)
    assert error and error[0] == expected, (reply, error)
    return error[1]


def records(system, kind, action=None):
    db = sqlite3.connect(f"file:{system.state}/store.db?mode=ro", uri=True)
    lines = [json.loads(line) for (line,) in db.execute("SELECT line FROM record ORDER BY sequence")]
    db.close()
    return [r for r in lines if r["kind"] == kind and action in (None, r.get("action"))]


def test_duties(system):
    pay = {"subjects": [f"user:{ALICE}"], "roles": ["pay-*"], "capabilities": ["caller"]}
    reply = done(system, ADMIN, "SetPolicy", change=True, name="pay", fields=pay)
    assert reply["policy"]["source"] == "store" and reply["policy"]["version"] == 1
    assert any("pay-*" in w for w in reply["warnings"])
    for uid in (ADMIN, AUDITOR):
        assert done(system, uid, "GetPolicy", name="pay")["policy"]["roles"] == ["pay-*"]
        listed = done(system, uid, "ListPolicies")["policies"]
        assert [p["name"] for p in listed] == ["admin", "audit", "pay"]
        assert done(system, uid, "Status")["status"]["mode"] == "system"
    for uid in (0, ALICE, BOB):
        for method, p in (("GetPolicy", {"name": "pay"}), ("ListPolicies", {}), ("Status", {})):
            refused(system, uid, method, **p)
    for uid in (0, AUDITOR, ALICE):
        refused(system, uid, "SetPolicy", change=True, name="x", fields=pay)
        refused(system, uid, "DeletePolicy", change=True, name="pay")
    text = refused(system, ADMIN, "DeletePolicy", "Exists", change=True, name="admin")
    assert "admin.json" in text
    text = refused(system, ADMIN, "SetPolicy", "Invalid", change=True, name="x", fields={**pay, "rols": []})
    assert "rols" in text
    done(system, ADMIN, "DeletePolicy", change=True, name="pay")
    refused(system, ADMIN, "GetPolicy", "NotFound", name="pay")
    kinds = [(d["name"], bool(d["old"]), bool(d["new"])) for d in records(system, "policy", "set") + records(system, "policy", "delete")]
    assert kinds == [("pay", False, True), ("pay", True, False)]
    last = records(system, "refusal")[-1]
    assert last["code"] == "Denied" and last["actor"]["owner"].startswith("user:") and last["reason"]


def test_whoami(system):
    me = done(system, ADMIN, "WhoAmI")["identity"]
    assert me["owner"] == f"user:{ADMIN}" and f"user:{ADMIN}" in me["subjects"]
    assert [c["capability"] for c in me["capabilities"]] == ["administer", "status"]
    assert done(system, 0, "WhoAmI")["identity"]["capabilities"] == []


def test_names_of_the_host(system):
    """The daemon can look names up, with all that it gave up."""
    done(
        system,
        ADMIN,
        "SetPolicy",
        change=True,
        name="named",
        fields=policy("user:daemon", capabilities=["status"]),
    )
    assert done(system, 1, "Status")
    assert "user:daemon" in done(system, 1, "WhoAmI")["identity"]["subjects"]
    refused(system, 2, "Status")


def test_test_agrees(system):
    cases = [(ADMIN, "Status", "status"), (ALICE, "Status", "status"), (AUDITOR, "Lock", "administer")]
    for uid, method, capability in cases:
        v = done(system, AUDITOR, "TestPolicy", who={"user": str(uid)}, capability=capability)["verdicts"]
        assert len(v) == 1 and v[0]["reason"]
        assert len(v[0]["considered"]) == 2
        assert v[0]["allowed"] == (call(system, uid, method)[1] is None)
    refused(system, ALICE, "TestPolicy", who={"user": str(ALICE)})
    assert "who.usr" in refused(system, ADMIN, "TestPolicy", "Invalid", who={"usr": "x"})


def alarms(system):
    return [w["text"] for w in done(system, ADMIN, "Status")["status"]["alarms"] if w["id"] == "policy-files"]


def test_reload(system):
    bad = put(system, "bob", '{\n  "subjects": ["user:0"],\n  "capabilities": ["status"]\n}')
    system.process.send_signal(signal.SIGHUP)
    wait_for(lambda: alarms(system), 10, "the alarm")
    assert f"{bad}:2:16: subjects[0]" in alarms(system)[0]
    refused(system, BOB, "Status")
    put(system, "bob", policy(f"user:{BOB}", capabilities=["status"]))
    system.process.send_signal(signal.SIGHUP)
    wait_for(lambda: call(system, BOB, "Status")[1] is None, 10, "the reload")
    assert alarms(system) == []


def test_a_change_counts_for_connections_that_are_open(system):
    put(system, "bob", policy(f"user:{BOB}", capabilities=["status"]))
    system.process.send_signal(signal.SIGHUP)
    wait_for(lambda: call(system, BOB, "Status")[1] is None, 10, "the reload")

    def ask():
        with system.attached() as c:
            c.call("Status")
            (system.run / "asked").touch()
            wait_for((system.run / "gone").exists, 10, "the policy to go")
            try:
                c.call("Status")
            except Error as e:
                return e.name
        return "was answered"

    system.run.chmod(0o777)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(as_uid(BOB, ask)))
    thread.start()
    wait_for((system.run / "asked").exists, 10, "the first answer")
    (system.policies / "bob.json").unlink()
    system.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(records(system, "policy", "reload")) == 2, 10, "the reload")
    (system.run / "gone").touch()
    thread.join()
    assert answers == ["Denied"]


def test_files_are_recorded_at_each_start(system):
    """Who changes them while no daemon runs leaves a trace all the same."""
    (first,) = records(system, "policy", "start")
    assert set(first["files"]) == {"admin", "audit"}
    system.stop()
    put(system, "bob", policy(f"user:{BOB}", capabilities=["status"]))
    (system.policies / "audit.json").unlink()
    system.start()
    second = records(system, "policy", "start")[-1]
    assert set(second["files"]) == {"admin", "bob"} and second["files"]["admin"] == first["files"]["admin"]


def test_as_many_files_as_may_be(system):
    """More than one record holds."""
    for i in range(1022):
        put(system, f"{i:063}", policy("group:2000", capabilities=["status"]))
    system.process.send_signal(signal.SIGHUP)
    wait_for(lambda: records(system, "policy", "reload") or alarms(system), 30, "the reload")
    assert alarms(system) == []
    told = records(system, "policy", "reload")
    assert sum(len(r["files"]) for r in told) == 1024 and {r["of"] for r in told} == {1024}


def test_examples_are_taken(system):
    examples = sorted((pathlib.Path(__file__).parents[2] / "contrib" / "policies").glob("*.json"))
    assert examples
    for example in examples:
        put(system, example.stem, example.read_text())
    system.process.send_signal(signal.SIGHUP)
    wait_for(lambda: records(system, "policy", "reload"), 10, "the reload")
    listed = {p["name"] for p in done(system, ADMIN, "ListPolicies")["policies"]}
    assert {e.stem for e in examples} <= listed and alarms(system) == []
