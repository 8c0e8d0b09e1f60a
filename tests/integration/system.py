"""A system daemon under a user of its own, and the identities that use it.

    def test_x(system):                     # started, nothing allowed but to the administrator
        alice = system.agent("alice", uid=ALICE)
        alice.call("WhoAmI"), alice.hsmint("whoami")
"""

import itertools
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys

import pytest

from conftest import Daemon, as_uid, program
from test_pkcs11 import loader
from varlink import Error, request_id

# Nobody's on any machine, one hopes: no names are needed.
DAEMON, ADMIN, ALICE, BOB, CAROL, DAVE, ERIN = 64500, 64501, 64511, 64512, 64513, 64514, 64515
PAY, AUDIT = 64520, 64521

ADMINISTRATOR = {"subjects": [f"user:{ADMIN}"], "capabilities": ["administrator"]}
count = itertools.count()


def python():
    """One that strangers can run, too: an own one may be at home."""
    for path in (sys.executable, "/usr/bin/python3"):
        if as_uid(DAVE, lambda: os.access(path, os.X_OK)) is True:
            return path
    pytest.skip("other users can run no Python here")


def hierarchies():
    """Where control groups can be made as systemd makes them: the roots of the
    hierarchies whose paths name units."""
    roots = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields, kind = line.split(" - ")
        root, where = fields.split()[3:5]
        kind, _, options = kind.split()[:3]
        if root == "/" and (kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options)):
            roots.append(pathlib.Path(where))
    return roots


class Unit:
    """A control group as a unit of the system has."""

    def __init__(self, path="system.slice/hsmint-test-{}.service"):
        self.path = path.format(f"{os.getpid()}-{next(count)}")
        self.name = self.path.rsplit("/", 1)[-1]
        self.made = []
        for root in hierarchies():
            whole = pathlib.Path(self.path)
            for part in [*reversed(whole.parents), whole][1:]:
                folder = root / part
                try:
                    folder.mkdir()
                    self.made.append(folder)
                except FileExistsError:
                    pass
                except OSError as e:
                    self.remove()
                    pytest.skip(f"no control group can be made here: {e}")
        if not self.made:
            pytest.skip("no hierarchy of control groups that systemd would use is mounted")

    def enter(self):
        for root in hierarchies():
            (root / self.path / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self):
        for folder in reversed(self.made):
            try:
                folder.rmdir()
            except OSError:
                pass  # not empty: somebody else's are in it


class Agent:
    """A process of one identity: agent.py. `login`: name and secret id."""

    def __init__(self, system, name, uid, groups=(), unit=None, prefix=(), env=None):
        self.system, self.name, self.uid, self.login = system, name, uid, None
        self.home = pathlib.Path(system.place, f"home-{name}")
        self.home.mkdir(mode=0o700)
        os.chown(self.home, uid, -1)

        def become():
            if unit:
                unit.enter()
            os.setgroups(list(groups))
            os.setresgid(*[groups[0] if groups else uid] * 3)
            os.setresuid(uid, uid, uid)

        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HSMINT_SOCKET": str(system.socket),
            "HSMINT_CONFIG": str(self.home / "none.conf"),
            **(env or {}),
        }
        self.process = subprocess.Popen(
            [*prefix, python(), "-B", pathlib.Path(__file__).parent / "agent.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=self.home,
            preexec_fn=become,
        )

    def tell(self, **told):
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the agent {self.name} has ended"
        return json.loads(line)

    def try_call(self, method, secret=None, **parameters):
        return self.tell(call=method, parameters=parameters, secret=secret)

    def call(self, method, secret=None, **parameters):
        answer = self.try_call(method, secret, **parameters)
        if "error" in answer:
            raise AssertionError(f"{self.name}: {method}: {answer}")
        answer["reply"]["secret"] = answer["secret"]
        return answer["reply"]

    def change(self, method, secret=None, **parameters):
        return self.call(method, secret, request_id=request_id(), **parameters)

    def log_in(self, name, secret_id):
        """By name from here on, in all ways."""
        self.login = (name, secret_id)
        self.secret_file = self.home / "secret-id"
        self.secret_file.write_text(secret_id + "\n")
        self.secret_file.chmod(0o600)
        os.chown(self.secret_file, self.uid, -1)
        self.call("Login", name=name, secret=secret_id)

    def run(self, *words, input="", env=None):
        return self.tell(run=[str(w) for w in words], input=input, env=env or {})

    def hsmint(self, *words, input=""):
        login = ["--login", self.login[0], "--secret-id-file", self.secret_file] if self.login else []
        return self.run(program("hsmint"), *words, *login, input=input)

    def ok(self, *words, input=""):
        r = self.hsmint(*words, input=input)
        assert r["status"] == 0, (self.name, words, r)
        return r["out"]

    def pkcs11_tool(self, *words):
        pin = ["--pin", ".".join(self.login) if "." not in self.login[1] else self.login[1]] if self.login else []
        so = self.system.so
        return self.run("pkcs11-tool", "--module", so, "--login", *pin, *words, env=loader(so))

    def p11(self, *lines):
        """p11client's answers to these lines, after a login."""
        so = self.system.so
        log_in = f"loginuser {self.login[0]} {self.login[1]}" if self.login else "login"
        text = "\n".join(["open", log_in, *lines, "exit", ""])
        r = self.run(program("tests", "integration", "p11client"), so, input=text, env=loader(so))
        answers = r["out"].splitlines()
        assert answers[:1] == ["ok "] and len(answers) == len(lines) + 3, r
        return answers[2:-1] if answers[1].startswith("ok") else [answers[1]] * len(lines)

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


class System(Daemon):
    """hsmintd --system under DAEMON's uid. Its socket is in a folder of /run, where
    clients trust a daemon of another user."""

    def __init__(self, place, token, service):
        super().__init__(place, token, service)
        self.run.rmdir()
        self.run = pathlib.Path("/run", f"hsmint-test-{os.getpid()}-{next(count)}")
        self.socket = self.run / "socket"
        self.policies = place / "policies.d"
        self.agents = []
        self.so = program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")
        self.settings["daemon"].update(mode="system", socket=self.socket, policies_dir=self.policies)
        ca = place / "ca.pem"
        shutil.copy(service.ca, ca)
        self.settings["service"]["ca_file"] = ca
        self.run.mkdir(mode=0o755)
        self.policies.mkdir(mode=0o755)
        self.state.mkdir(mode=0o700)
        place.chmod(0o711)
        for path in (self.run, self.state, self.pin_file, token.directory, *token.directory.rglob("*")):
            os.chown(path, DAEMON, DAEMON)
        for path in (ca, token.config):
            os.chmod(path, 0o644)
        self.policy_file("administrator", ADMINISTRATOR)

    def policy_file(self, name, policy):
        path = self.policies / f"{name}.json"
        path.write_text(json.dumps(policy))
        path.chmod(0o644)
        return path

    def write_config(self):
        super().write_config()
        self.config.chmod(0o644)

    def spawn(self, *options, **popen):
        def become():
            os.setgroups([])
            os.setresgid(DAEMON, DAEMON, DAEMON)
            os.setresuid(DAEMON, DAEMON, DAEMON)

        return super().spawn("--system", *options, preexec_fn=become, **popen)

    def agent(self, name, uid, **how):
        agent = Agent(self, name, uid, **how)
        self.agents.append(agent)
        return agent

    def set_up(self, *roles):
        """An organisation with an admin key and these roles, by its administrator."""
        self.admin = admin = self.agent("admin", ADMIN)
        admin.change("Init")
        admin.change(
            "SetConfig",
            secret=self.service.admin_key,
            fields={"api_endpoint": self.service.url, "organization_id": "org-adminsim"},
            keep_first=True,
        )
        for role in roles:
            fields = {"project_id": "proj_abc", "ttl": 3600, "max_ttl": 86400, "keep_value": True}
            admin.change("SetRole", name=role, fields=fields)
        return admin

    def records(self):
        """What the store has written down, in order."""
        import sqlite3

        (path,) = self.state.glob("*.db")
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            return [json.loads(line) for (line,) in db.execute("SELECT line FROM record ORDER BY sequence")]

    def end(self):
        for agent in self.agents:
            agent.end()
        super().end()
        shutil.rmtree(self.run)


def stranger_can_use(path):
    """May another user run what is built here?"""
    return as_uid(DAVE, lambda: os.access(path, os.R_OK | os.X_OK))


@pytest.fixture
def system_stopped(place, token, service):
    if os.geteuid() != 0:
        pytest.skip("only root can start a daemon and clients of other users")
    for path in (program("hsmintd"), program("hsmint"), pathlib.Path(__file__)):
        if stranger_can_use(path.parent) is not True:
            pytest.skip(f"other users cannot use {path.parent}")
    if not stat.S_ISDIR(os.stat("/run").st_mode):
        pytest.skip("no /run here")
    s = System(place, token, service)
    yield s
    s.end()


@pytest.fixture
def system(system_stopped):
    return system_stopped.start()
