"""System mode against those who would be more than they are: root in a user
namespace with the socket mounted, root of a container, all the clients of somebody
else's `p11-kit server`, an allowed executable with a library of one's own in it; and
policies that change while their subject mints."""

import json
import os
import subprocess
import threading
import time

import pytest

from conftest import not_sanitized, program, wait_for
from system import ADMIN, BOB, CAROL, DAVE, PAY, Unit, python, system, system_stopped  # noqa: F401 (fixtures)
from test_pkcs11 import need, p11_kit_client
from varlink import request_id

CALLER = {"roles": ["pay-*"], "capabilities": ["caller"]}


def policy(admin, name, *subjects, **more):
    return admin.change("SetPolicy", name=name, fields={"subjects": list(subjects), **CALLER, **more})


@pytest.fixture
def admin(system):  # noqa: F811
    return system.set_up("pay-api", "web")


def mint(agent, role):
    """The lease, or the refusal's name."""
    answer = agent.try_call("Mint", role=role, request_id=request_id())
    return answer.get("error") or answer["reply"]["lease"]


def whoami(agent):
    return agent.call("WhoAmI")["identity"]


# ---- root, of a sort ----


def can_unshare(*options):
    need("unshare")
    if subprocess.run(["unshare", *options, "true"], capture_output=True).returncode != 0:
        pytest.skip(f"unshare {' '.join(options)} is not possible here")


def test_root_in_a_user_namespace_is_nobody_without_a_login(system, admin):  # noqa: F811
    """As in a rootless container that has the socket mounted. What its user may, it may
    not: it could as well be another user's, by what the daemon can see."""
    can_unshare("-Urm")
    policy(admin, "bobs", f"user:{BOB}", f"group:{BOB}", "login:job")
    mounted = system.place / "mounted"
    mounted.mkdir()
    script = f'mount --bind {system.run} {mounted} && exec "$@"'
    inside = ("unshare", "-Urm", "sh", "-c", script, "sh")
    env = {"HSMINT_SOCKET": str(mounted / "socket")}
    bob = system.agent("bob", BOB, prefix=inside, env=env)
    dave = system.agent("dave", DAVE, prefix=inside, env=env)
    assert bob.run("id", "-u")["out"] == dave.run("id", "-u")["out"] == "0\n"
    bobs_own = mint(system.agent("bob-outside", BOB), "pay-api")
    for agent, uid in ((bob, BOB), (dave, DAVE)):
        me = whoami(agent)
        assert me["owner"] == f"user:{uid}" and me["borrowed"] is True and me["capabilities"] == []
        for method, parameters in (
            ("Mint", {"role": "pay-api", "request_id": request_id()}),
            ("Revoke", {"lease_id": bobs_own["lease_id"], "request_id": request_id()}),
            ("ReadKey", {"lease_id": bobs_own["lease_id"]}),
            ("GetLease", {"lease_id": bobs_own["lease_id"]}),
            ("ListLeases", {}),
            ("Status", {}),
            ("SetPolicy", {"name": "mine", "fields": {}, "request_id": request_id()}),
        ):
            assert agent.try_call(method, **parameters)["error"] in ("Denied", "NotFound"), method
    bob.log_in("job", admin.ok("login", "create", "job").strip())
    assert mint(bob, "pay-api")["owner"] == "login:job"
    assert mint(bob, "web") == "Denied"
    # A deny holds there, too.
    policy(admin, "not-bob", f"user:{BOB}", effect="deny")
    assert mint(bob, "pay-api") == "Denied"


def test_a_user_namespace_of_a_container_has_no_uid(system, admin):  # noqa: F811
    """Root of a container takes a uid and makes a user namespace as that user: to the
    daemon it looks like that user's rootless container."""
    can_unshare("-pf")
    can_unshare("-Ur")
    need("setpriv")
    policy(admin, "bobs", f"user:{BOB}", f"group:{BOB}")
    take = ("setpriv", "--reuid", str(BOB), "--regid", str(BOB), "--clear-groups", "unshare", "-Ur")
    agent = system.agent("container", 0, prefix=("unshare", "-pf", *take))
    assert whoami(agent)["borrowed"] is True
    assert mint(agent, "pay-api") == "Denied"


SUBORDINATE = """
import ctypes, os, sys
uid, group, start = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
made, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.setgroups([uid, group])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
    os.write(made[1], b"x")
    os.read(mapped[0], 1)
    os.setgroups([])
    os.setresgid(5, 5, 5)
    os.setresuid(5, 5, 5)
    os.execvp(start[0], start)
os.read(made[0], 1)
for name in ("uid_map", "gid_map"):  # as newuidmap(1) and newgidmap(1) write them
    with open(f"/proc/{child}/{name}", "w") as f:
        f.write(f"0 {uid} 1\\n1 100000 1000")
os.write(mapped[1], b"x")
os.waitpid(child, 0)
"""


def test_subordinate_ids_escape_no_deny(system, admin):  # noqa: F811
    """Who has some in /etc/subuid can be a user whom no deny names, in no group, and
    with limits that nobody has used up."""
    can_unshare("-U")
    policy(admin, "everybody", "user:*", "group:*")
    policy(admin, "not-bob", f"user:{BOB}", f"group:{PAY}", effect="deny")
    assert mint(system.agent("bob", BOB, groups=(BOB, PAY)), "pay-api") == "Denied"
    prefix = (python(), "-c", SUBORDINATE, str(BOB), str(PAY))
    other = system.agent("subordinate", 0, prefix=prefix)
    assert whoami(other)["owner"] == "user:100004"
    assert mint(other, "pay-api") == "Denied"


def test_root_of_a_container_has_no_uid(system, admin):  # noqa: F811
    """In another pid namespace and the daemon's own user namespace it may take any
    uid it likes: so none counts."""
    can_unshare("-pf")
    need("setpriv")
    policy(admin, "everybody", "user:*", "group:*")
    for uid in (0, ADMIN, BOB):
        take = ("setpriv", "--reuid", str(uid), "--regid", str(PAY), "--clear-groups")
        agent = system.agent(f"container-{uid}", 0, prefix=("unshare", "-pf", *take))
        assert mint(agent, "pay-api") == "Denied", uid
        assert agent.try_call("ListPolicies")["error"] == "Denied"
        assert whoami(agent)["borrowed"] is True


def test_root_needs_a_login_or_a_unit(system, admin):  # noqa: F811
    policy(admin, "everybody", "user:*", "group:*", "login:ops", "unit:hsmint-test-*.service")
    root = system.agent("root", 0)
    assert mint(root, "pay-api") == "Denied"
    secret = admin.ok("login", "create", "ops", "--uid", "0").strip()
    root.log_in("ops", secret)
    assert mint(root, "pay-api")["owner"] == "login:ops"
    unit = Unit()
    try:
        daemon = system.agent("root-daemon", 0, unit=unit)
        assert mint(daemon, "pay-api")["role"] == "pay-api"
    finally:
        system.agents.remove(daemon)
        daemon.end()
        unit.remove()


def test_units_of_users_are_none(system, admin):  # noqa: F811
    policy(admin, "unit", "unit:hsmint-test-*.service")
    for path in (
        "user.slice/user-64512.slice/user@64512.service/app.slice/hsmint-test-{}.service",
        "system.slice/hsmint-other-{}.service/hsmint-test-1.service",
        "hsmint-test-{}.service",
        "machine.slice/hsmint-test-{}.service",
    ):
        unit = Unit(path)
        try:
            agent = system.agent(f"in-{unit.path.replace('/', '-')[:40]}", CAROL, unit=unit)
            assert mint(agent, "pay-api") == "Denied", path
        finally:
            system.agents.remove(agent)
            agent.end()
            unit.remove()


# ---- other people's p11-kit server ----


def test_clients_of_a_p11_kit_server_are_its_user(system, admin):  # noqa: F811
    policy(admin, "bobs", f"user:{BOB}")
    client, address = p11_kit_client(), system.place / "far" / "p11"
    address.parent.mkdir(mode=0o777)
    address.parent.chmod(0o777)
    bob = system.agent("bob", BOB)
    server = subprocess.Popen(
        [need("p11-kit"), "server", "-f", "-n", address, "--provider", system.so, "pkcs11:"],
        env=bob.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=BOB, group=BOB, extra_groups=[],
    )
    try:
        wait_for(address.exists, 10, "p11-kit server to listen")
        address.chmod(0o666)
        carol = system.agent("carol", CAROL)
        assert mint(carol, "pay-api") == "Denied"
        env = {"P11_KIT_SERVER_ADDRESS": f"unix:path={address}"}

        def far(*words):
            return carol.run("pkcs11-tool", "--module", client, "--login", *words, env=env)

        key = ("--keygen", "--key-type", "GENERIC:32", "--extractable", "--label")
        r = far(*key, "pay-api")
        if "CKR_DEVICE_ERROR" in r["err"] or "no slot" in r["err"].lower():
            pytest.skip("p11-kit server serves its own user only here")
        assert r["status"] == 0, r
        # It is bob's, and carol's own connection knows nothing of it.
        leases = bob.call("ListLeases")["leases"]
        assert [lease["owner"] for lease in leases] == [f"user:{BOB}"]
        assert carol.try_call("GetLease", lease_id=leases[0]["lease_id"])["error"] in ("Denied", "NotFound")
        # No more than bob may: neither another role nor policies.
        assert far(*key, "web")["status"] != 0
        rule = system.place / "rule.json"
        rule.write_text('{"subjects": ["user:%d"], "capabilities": ["administrator"]}' % CAROL)
        rule.chmod(0o644)
        write = ("--write-object", rule, "--type", "data", "--application-label", "hsmint:policy", "--label", "mine")
        assert far(*write)["status"] != 0
        assert "mine" not in [p["name"] for p in admin.call("ListPolicies")["policies"]]
    finally:
        server.terminate()
        server.wait(10)


# ---- an allowed executable ----

PRELOADED = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void ask(int fd, const char *message)
{
    char c;
    if (write(fd, message, strlen(message) + 1) < 0)
        _exit(9);
    while (read(fd, &c, 1) == 1 && c)
        putchar(c);
    putchar('\n');
}

__attribute__((constructor)) static void inside(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, getenv("HSMINT_SOCKET"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        _exit(8);
    ask(fd, "{\"method\":\"org.hsmint.Attach\",\"parameters\":{\"version\":1,\"program\":\"x\"}}");
    ask(fd, "{\"method\":\"org.hsmint.Mint\",\"parameters\":{\"role\":\"pay-api\",\"request_id\":\"01m7ystyxz25y5b3t5grqay39a\"}}");
    ask(fd, "{\"method\":\"org.hsmint.Mint\",\"parameters\":{\"role\":\"web\",\"request_id\":\"01m7ystyxz25y5b3t5grqay39b\"}}");
    fflush(stdout);
    _exit(0);
}
"""


def sees_executables(system):  # noqa: F811
    """With CAP_SYS_PTRACE the daemon sees what others run (contrib/systemd/drop-in)."""
    need("setpriv")
    plain = system.command
    caps = ["setpriv", "--reuid", "64500", "--regid", "64500", "--clear-groups"]
    caps += ["--inh-caps", "+sys_ptrace", "--ambient-caps", "+sys_ptrace"]
    system.command = lambda *options: [*caps, *plain("--system", *options)]
    spawn = super(type(system), system).spawn
    system.spawn = lambda *options, **popen: spawn(*options, **popen)
    return system.start()


def test_an_executable_narrows_and_never_grants(system_stopped):  # noqa: F811
    not_sanitized("a sanitizer wants to be loaded before any other library")
    s = sees_executables(system_stopped)
    admin = s.set_up("pay-api", "web")
    r = admin.try_call(
        "SetPolicy", name="exe", request_id=request_id(), fields={**CALLER, "subjects": [f"exe:{program('hsmint')}"]}
    )
    assert r["error"] == "Invalid", "alone it would grant"
    policy(admin, "carols-tool", f"user:{CAROL}", f"exe:{program('hsmint')}")
    carol, dave = s.agent("carol", CAROL), s.agent("dave", DAVE)
    if not whoami(carol)["exe"]:
        pytest.skip("the daemon sees no executables of others here, even with CAP_SYS_PTRACE")
    # carol only by that program, dave not at all.
    assert mint(carol, "pay-api") == "Denied"
    assert carol.hsmint("mint", "pay-api")["status"] == 0
    assert carol.hsmint("mint", "web")["status"] == 3
    assert dave.hsmint("mint", "pay-api")["status"] == 3
    # With a library of one's own in it: what the policy says, and no more.
    source, library = s.place / "inside.c", s.place / "inside.so"
    source.write_text(PRELOADED)
    subprocess.run([need("gcc"), "-shared", "-fPIC", "-o", library, source], check=True)
    library.chmod(0o755)
    env = {"LD_PRELOAD": str(library)}
    for agent, in_role in ((carol, "pay-api"), (dave, None)):
        out = agent.run(program("hsmint"), "version", env=env)["out"]
        attached, first, second = [json.loads(line) for line in out.splitlines()]
        assert attached["parameters"]["token"]
        assert ("error" not in first) == (in_role == "pay-api"), first
        assert second["error"] == "org.hsmint.Denied", second


def test_without_the_right_to_see_an_executable_it_does_not_match(system, admin):  # noqa: F811
    policy(admin, "carols-tool", f"user:{CAROL}", f"exe:{program('hsmint')}")
    carol = system.agent("carol", CAROL)
    if whoami(carol)["exe"]:
        pytest.skip("executables of others can be seen here")
    assert carol.hsmint("mint", "pay-api")["status"] == 3


# ---- policies that change ----


def test_a_policy_changes_while_its_subject_mints(system, admin, service):  # noqa: F811
    policy(admin, "bobs", f"user:{BOB}")
    bob = system.agent("bob", BOB)
    answers, stop = [], threading.Event()

    def go_on():
        while not stop.is_set():
            answers.append(mint(bob, "pay-api"))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for _ in range(5):
            time.sleep(0.3)
            admin.change("DeletePolicy", name="bobs")
            changed = len(answers)
            # One may have been on its way; the next is refused, on the same connection.
            wait_for(lambda: len(answers) >= changed + 3, 10, "calls")
            assert answers[changed + 1 : changed + 3] == ["Denied", "Denied"]
            policy(admin, "bobs", f"user:{BOB}")
            wait_for(lambda: isinstance(answers[-1], dict), 10, "a mint")
    finally:
        stop.set()
        thread.join()
    minted = [a["lease_id"] for a in answers if isinstance(a, dict)]
    refused = [a for a in answers if a == "Denied"]
    assert len(minted) + len(refused) == len(answers) and minted and refused
    # No account but those of the leases that were answered.
    assert service.alive() == len(minted)
    live = bob.call("ListLeases", live=True, limit=1000)["leases"]
    assert {lease["lease_id"] for lease in live} == set(minted[-len(live) :])


def test_a_mint_that_has_begun_ends(system, admin, service):  # noqa: F811
    policy(admin, "bobs", f"user:{BOB}")
    bob = system.agent("bob", BOB)
    mint(bob, "pay-api")  # connections are warm
    asked = service.control("counters")["requests"]
    service.control("settings", {"latency_ms": 500})
    got = []
    thread = threading.Thread(target=lambda: got.append(mint(bob, "pay-api")))
    thread.start()
    wait_for(lambda: service.control("counters")["requests"] > asked, 10, "the request")
    admin.change("DeletePolicy", name="bobs")
    thread.join()
    service.control("settings", {"latency_ms": 0})
    assert got[0]["state"] == "active", got
    assert mint(bob, "pay-api") == "Denied"


def test_limits_hold_for_calls_at_the_same_moment(system, admin):  # noqa: F811
    policy(admin, "bobs", f"user:{BOB}", limits={"live_leases": 3, "max_ttl": "10m"})
    bobs = [system.agent(f"bob-{i}", BOB) for i in range(6)]
    answers = []
    threads = [threading.Thread(target=lambda a=a: answers.append(mint(a, "pay-api"))) for a in bobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    leases = [a for a in answers if isinstance(a, dict)]
    assert len(leases) == 3 and answers.count("Limit") == 3, answers
    assert all(lease["lease_duration"] <= 600 for lease in leases)
    assert bobs[0].try_call("Mint", role="pay-api", ttl=3600, request_id=request_id())["error"] in ("Ttl", "Limit")


# ---- descriptors that are passed on ----


HANDED_ON = f"""
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from varlink import Connection

def become(uid):
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)

ours, theirs = socket.socketpair()
if os.fork() == 0:
    ours.close()
    become({BOB})
    c = Connection(sys.argv[2]); c.attach()
    socket.send_fds(theirs, [b"x"], [c.sock.fileno()])
    theirs.recv(1)
    os._exit(0)
theirs.close()
become({DAVE})
own = Connection(sys.argv[2]); own.attach()
given = Connection(sys.argv[2])
given.sock = socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])
given.sock.settimeout(30)
print(given.call("WhoAmI")["identity"]["owner"], own.call("WhoAmI")["identity"]["owner"])
ours.send(b"x")
"""


def test_a_connection_stays_its_makers(system, admin):  # noqa: F811
    """Who is given bob's connection speaks as bob, who gave it; one's own is one's own."""
    command = [python(), "-B", "-c", HANDED_ON, os.path.dirname(__file__), system.socket]
    r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert r.stdout.split() == [f"user:{BOB}", f"user:{DAVE}"], r
