"""Who could do what in system mode: users, groups, a unit, a named login and five
policies, by the raw protocol, by hsmint and by PKCS#11; what `policy test` says of
it, and what is recorded."""

import concurrent.futures
import json
import time

import pytest

from conftest import wait_for
from system import ADMIN, ALICE, AUDIT, BOB, CAROL, DAVE, ERIN, PAY, Unit, system_stopped  # noqa: F401 (fixtures)
from varlink import request_id

ROLES = ("pay-api", "pay-lab", "web")
OWN = ("mint", "renew", "read", "list-own", "revoke-own")
ANY = ("list-any", "revoke-any")
OTHER = ("administer", "rotate", "audit", "status")
CALLER = set(OWN)

# A right that includes another: whoever may revoke all may revoke his own. No method
# asks for audit alone, the log being read on the host: who administers may do what it
# lets. That audit is less shows in the row of who has it, in the column administer.
INCLUDES = {"revoke-own": "revoke-any", "list-own": "list-any", "audit": "administer"}


def policies(unit):
    """Beside the administrator's, which is a file."""
    return {
        "payments": {
            "subjects": [f"group:{PAY}", "login:batch"],
            "roles": ["pay-*"],
            "capabilities": ["caller"],
            "limits": {"max_ttl": "2h", "live_leases": 100},
        },
        "audit": {"subjects": [f"group:{AUDIT}"], "capabilities": ["auditor"]},
        "operations": {"subjects": [f"unit:{unit.name}"], "roles": ["*"], "capabilities": ["operator"]},
        "lab-is-closed": {
            "effect": "deny",
            "subjects": ["login:batch"],
            "roles": ["pay-lab"],
            "capabilities": ["mint"],
        },
    }


def expected(name, capability, role):
    """By spec/POLICY.md, from the policies above: a second opinion, by hand."""
    if name == "admin":
        return capability in ("administer", "status")
    if name == "unit":
        return capability in ("list-any", "revoke-any", "rotate", "status")
    if name == "erin":
        return capability in ("audit", "status")
    if name == "bob":
        return capability in CALLER and role.startswith("pay-")
    if name == "batch":
        return capability in CALLER and role.startswith("pay-") and (capability, role) != ("mint", "pay-lab")
    return False


def possible(name, capability, role):
    """What the method for it can be used for: a right may include another."""
    return expected(name, capability, role) or expected(name, INCLUDES.get(capability, capability), role)


def cells():
    for capability in OWN + ANY:
        for role in ROLES:
            yield capability, role
    for capability in OTHER:
        yield capability, ""


class Actors:
    """The identities, with leases of their own from a time when all might mint."""

    def __init__(self, system, unit):
        self.system, self.unit, self.secret = system, unit, None
        admin = system.set_up(*ROLES)
        self.secret_id = admin.ok("login", "create", "batch").strip()
        self.agents = {
            "admin": admin,
            "bob": system.agent("bob", BOB, groups=(PAY,)),
            "unit": system.agent("unit", CAROL, unit=unit),
            "batch": system.agent("batch", DAVE),
            "erin": system.agent("erin", ERIN, groups=(AUDIT,)),
            "alice": system.agent("alice", ALICE),
            "root": system.agent("root", 0),
        }
        self.agents["batch"].log_in("batch", self.secret_id)
        self.who = {
            "admin": [f"user:{ADMIN}"],
            "bob": [f"user:{BOB}", f"group:{PAY}"],
            "unit": [f"user:{CAROL}", f"unit:{unit.name}"],
            "batch": [f"user:{DAVE}", "login:batch"],
            "erin": [f"user:{ERIN}", f"group:{AUDIT}"],
            "alice": [f"user:{ALICE}"],
            "root": ["user:0", "group:0"],
        }
        self.leases = self.mint_for_all()
        for name, policy in policies(unit).items():
            admin.hsmint("policy", "set", name, "-", input=json.dumps(policy))

    def mint_for_all(self):
        everybody = [f"user:{u}" for u in (ADMIN, ALICE, BOB, ERIN)] + [f"unit:{self.unit.name}", "login:batch"]
        everything = {"subjects": everybody, "roles": ["*"], "capabilities": ["mint"]}
        self.agents["admin"].change("SetPolicy", name="at-first", fields=everything)

        def mint(name):
            uses = ("keep", "raw", "hsmint", "pkcs11")
            return {
                (name, role, use): self.agents[name].change("Mint", role=role)["lease"]["lease_id"]
                for role in ROLES
                for use in uses
            }

        names = [n for n in self.agents if n != "root"]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            leases = {k: v for part in pool.map(mint, names) for k, v in part.items()}
        self.agents["admin"].change("DeletePolicy", name="at-first")
        return leases

    def lease(self, name, capability, role, use):
        """One of one's own, or somebody else's; `use` for what takes it away."""
        mine = capability in OWN and name != "root"
        owner = name if mine else "alice" if name != "alice" else "bob"
        return self.leases[owner, role, use if "revoke" in capability else "keep"]


# ---- three ways ----


def by_raw(actors, name, capability, role):
    """None if it was done, else the refusal (name, text)."""
    agent = actors.agents[name]
    lease = actors.lease(name, capability, role, "raw") if role else None
    calls = {
        "mint": ("Mint", {"role": role, "request_id": request_id()}),
        "renew": ("Renew", {"lease_id": lease, "ttl": 1800, "request_id": request_id()}),
        "read": ("ReadKey", {"lease_id": lease}),
        "list-own": ("GetLease", {"lease_id": lease}),
        "list-any": ("GetLease", {"lease_id": lease}),
        "revoke-own": ("Revoke", {"lease_id": lease, "request_id": request_id()}),
        "revoke-any": ("Revoke", {"lease_id": lease, "request_id": request_id()}),
        "administer": ("SetRole", {"name": "extra", "fields": {"project_id": "proj_abc"}, "request_id": request_id()}),
        "rotate": ("RotateConfig", {"request_id": request_id()}),
        "audit": ("ListPolicies", {}),
        "status": ("Status", {}),
    }
    method, parameters = calls[capability]
    answer = agent.try_call(method, **parameters)
    return (answer["error"], answer["text"]) if "error" in answer else None


def by_hsmint(actors, name, capability, role):
    lease = actors.lease(name, capability, role, "hsmint") if role else None
    commands = {
        "mint": ("mint", role),
        "renew": ("lease", "renew", lease, "--ttl", "30m"),
        "list-own": ("lease", "show", lease),
        "list-any": ("lease", "show", lease),
        "revoke-own": ("lease", "revoke", lease),
        "revoke-any": ("lease", "revoke", lease),
        "administer": ("role", "set", "extra", "project_id=proj_abc"),
        "rotate": ("config", "rotate"),
        "audit": ("policy", "list"),
        "status": ("status",),
    }
    if capability not in commands:
        return "no way"
    r = actors.agents[name].hsmint(*commands[capability])
    return None if r["status"] == 0 else (r["status"], r["err"])


def by_pkcs11(actors, name, capability, role):
    """pkcs11-tool, and p11client for what it has no option for."""
    agent = actors.agents[name]
    lease = actors.lease(name, capability, role, "pkcs11") if role else None
    cka_id = lease.encode().hex() if lease else None
    data = agent.home / "role.json"
    if not data.exists():
        data.write_text('{"project_id": "proj_abc"}')
        data.chmod(0o644)
    tool = {
        "mint": ("--keygen", "--key-type", "GENERIC:32", "--extractable", "--label", role),
        "read": ("--read-object", "--type", "secrkey", "--id", cka_id),
        "revoke-own": ("--delete-object", "--type", "secrkey", "--id", cka_id),
        "administer": ("--write-object", data, "--type", "data")
        + ("--application-label", "hsmint:role", "--label", "extra"),
        "rotate": ("--keygen", "--key-type", "GENERIC:32", "--label", "admin-key"),
    }
    client = {
        "renew": (f"find {lease}", "renew found 1800"),
        "list-own": (f"find {lease}",),
        "list-any": (f"find {lease}",),
        "revoke-any": (f"find {lease}", "destroy found"),
    }
    if capability in tool:
        r = agent.pkcs11_tool(*tool[capability])
        done = r["status"] == 0 and (capability != "read" or r["out"].startswith("sk-"))
        return None if done else (r["status"], r["out"] + r["err"])
    if capability in client:
        answers = agent.p11(*client[capability])
        return None if answers[-1].startswith("ok") else ("", answers[-1])
    return "no way"


# ---- the table ----


def table(title, names, done):
    """Its text. Rows are identities, columns capabilities; a cell names the roles."""
    columns = OWN + ANY + OTHER
    lines = [["", *columns]]
    for name in names:
        line = [name]
        for capability in columns:
            roles = ROLES if capability in OWN + ANY else ("",)
            verdicts = {role: done.get((name, capability, role)) for role in roles}
            allowed = [role or "yes" for role, v in verdicts.items() if v is None]
            if set(verdicts.values()) == {"no way"}:
                line.append("(no way)")
            else:
                line.append("all" if len(allowed) == len(ROLES) else " ".join(allowed) or "-")
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = ["  ".join(text.ljust(w) for text, w in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([title, *rows, ""])


def walk(actors, way, pause=0.0):
    """Each identity in a thread: {(name, capability, role): None or refusal}."""

    def one(name):
        done = {}
        for capability, role in cells():
            done[name, capability, role] = way(actors, name, capability, role)
            # No more than what is recorded one by one.
            if pause and done[name, capability, role]:
                time.sleep(pause)
        return done

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return {k: v for part in pool.map(one, actors.agents) for k, v in part.items()}


@pytest.fixture
def unit():
    u = Unit()
    yield u
    u.remove()


@pytest.fixture
def actors(unit, system_stopped):  # noqa: F811 (the unit goes when its processes have)
    """Deadlines are short, so that a key that was rotated out goes soon."""
    system_stopped.settings["hsm"]["deadline"] = "2s"
    system_stopped.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "2s"}
    return Actors(system_stopped.start(), unit)


@pytest.fixture
def show(record_property):
    """Into the test's diagnostics: tap.py."""

    def tell(*lines):
        for line in lines:
            print(line)
            record_property("shown", line)

    return tell


def rotated(actors):
    """Is the last rotation over? Another one is refused until then."""
    return not actors.agents["admin"].call("GetConfig")["config"].get("rotation")


def test_who_could_do_what(actors, show):
    for title, way, pause in (
        ("By the raw protocol", by_raw, 0.3),
        ("By hsmint", by_hsmint, 0.3),
        ("By pkcs11-tool and another PKCS#11 program", by_pkcs11, 0),
    ):
        wait_for(lambda: rotated(actors), 60, "the admin key before to be deleted")
        before = len(actors.system.records())
        done = walk(actors, way, pause)
        show(table(title, actors.agents, done))
        wrong = {
            cell: verdict
            for cell, verdict in done.items()
            if verdict != "no way" and (verdict is None) != possible(*cell)
        }
        assert not wrong, wrong
        refused = [r for r in actors.system.records()[before:] if r["kind"] == "refusal"]
        if way is by_raw:
            each_refusal_is_recorded(actors, refused, done, show)
            for cell, verdict in done.items():
                assert verdict is None or verdict[0] in ("Denied", "NotFound"), (cell, verdict)
        if way is by_hsmint:
            for cell, verdict in done.items():
                assert verdict in (None, "no way") or verdict[0] in (3, 4), (cell, verdict)
            each_refusal_left_a_record(actors, refused, done, show)
    policy_test_agrees(actors, show)


def owner_of(actors, name):
    return "login:batch" if name == "batch" else f"user:{actors.agents[name].uid}"


def each_refusal_left_a_record(actors, refused, done, show):
    """Of its owner, about this role and right (to one's own or any). A PKCS#11 program
    asks for more than it was told to, and may be refused more often than the four times
    a second that are recorded one by one: its refusals are not matched."""
    matched = 0
    for (name, capability, role), verdict in done.items():
        if verdict in (None, "no way"):
            continue
        asked = {capability, capability.replace("-any", "-own"), capability.replace("-own", "-any")}
        of_it = [r for r in refused if r["actor"]["owner"] == owner_of(actors, name)]
        found = [d for d in of_it if (d.get("role") or "") == role and asked & set(d["capability"])]
        assert found, (name, capability, role, verdict, json.dumps(of_it))
        matched += 1
    show(f"{matched} refusals by hsmint are recorded", "")


def each_refusal_is_recorded(actors, refused, done, show):
    """With who and why. A stranger is not told whether there is such a lease; the
    record says what it was."""
    for (name, capability, role), verdict in done.items():
        if verdict is None:
            continue
        why = verdict[1]
        if verdict[0] == "NotFound":
            why = f"lease {why.split(chr(34))[1]} is not {owner_of(actors, name)}'s"
        found = [r for r in refused if r["actor"]["owner"] == owner_of(actors, name) and r["reason"] == why]
        assert found, (name, capability, role, verdict)
        assert role in (found[0].get("role") or "", ""), found[0]
    show(f"{len(refused)} refusals are recorded, for example:", json.dumps(refused[0]), "")


def policy_test_agrees(actors, show):
    """In every cell: `policy test` says what was done, and exits 3 where refused."""
    admin, cell_count = actors.agents["admin"], 0
    for name, who in actors.who.items():
        verdicts = json.loads(admin.ok("policy", "test", *who, "--json"))
        said = {(v["capability"], v.get("role") or ""): v for v in verdicts}
        for capability, role in cells():
            v = said[capability, role]
            assert v["allowed"] == expected(name, capability, role), (name, v)
            assert v["reason"], v
            cell_count += 1
        for capability, role in (("mint", "pay-lab"), ("administer", "")):
            r = admin.hsmint("policy", "test", *who, "--capability", capability, *(["--role", role] if role else []))
            assert r["status"] == (0 if expected(name, capability, role) else 3), r
    show(f"`policy test` agrees in {cell_count} cells. Of one of them it says:")
    show(admin.hsmint("policy", "test", *actors.who["batch"], "--capability", "mint", "--role", "pay-lab")["out"])
