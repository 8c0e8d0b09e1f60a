"""Without systemd: contrib/init/hsmint starts daemon and keeper under two uids."""

import os
import subprocess
import time

import pytest

from conftest import SOURCE, Apart, as_uid, patience, program, wait_for


class Init(Apart):
    """What /etc/default/hsmint would say is a file here."""

    def __init__(self, *place):
        super().__init__(*place)
        self.settings["daemon"]["mode"] = "system"
        self.defaults = self.place / "defaults"
        self.defaults.write_text(
            f"config={self.config}\ndaemon={program('hsmintd')}\nkeeper={program('hsmint-keeper')}\nclient={program('hsmint')}\n"
            f"daemon_user={self.DAEMON}\nkeeper_user={self.KEEPER}\nstate={self.state}\nrun={self.run}\n"
            f"keeper_run={self.keeper_run}\npids={self.place}\ngroups=--clear-groups\nlog={self.log_file}\nstop_seconds=15\n"
        )
        self.write_config()

    def init(self, verb):
        return subprocess.run(
            [SOURCE / "contrib" / "init" / "hsmint", verb],
            env={"PATH": os.environ["PATH"], "HSMINT_DEFAULTS": str(self.defaults), "https_proxy": "http://127.0.0.1:9"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )

    def pid(self, name):
        return int((self.place / f"{name}.pid").read_text())


@pytest.fixture
def init(place, token, service):
    i = Init(place, token, service)
    yield i
    i.init("stop")


def uid_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Uid:"))


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"  # not yet waited for, by whom it fell to
    except OSError:
        return True


def test_start_reload_restart_stop(init):
    r = init.init("start")
    assert r.returncode == 0, r.stderr + init.log()
    assert init.init("status").returncode == 0
    daemon, keeper = init.pid("hsmintd"), init.pid("hsmint-keeper")
    assert (uid_of(daemon), uid_of(keeper)) == (Apart.DAEMON, Apart.KEEPER)

    def ask():
        with init.connect() as c:
            return c.attach()["mode"]

    assert as_uid(23003, ask) == "system"
    assert init.init("start").returncode == 0 and init.pid("hsmintd") == daemon
    assert init.init("reload").returncode == 0
    wait_for(lambda: "says what it said" in init.log(), what="a reload")
    assert init.init("restart").returncode == 0
    assert init.pid("hsmintd") != daemon
    assert as_uid(23003, ask) == "system"
    began = time.monotonic()
    assert init.init("stop").returncode == 0
    assert time.monotonic() - began < patience(14)  # nothing had to be killed
    assert init.init("status").returncode == 3
    for pid in (daemon, keeper):
        assert has_ended(pid)


def test_locked_pin_is_told(init):
    says = init.place / "says"
    says.write_text("locked")
    init.settings["hsm.env"] |= {
        "HSM_BEHIND": init.token.module,
        "HSM_SAYS": says,
        "HSM_LOGINS": init.place / "logins",
    }
    init.settings["hsm"]["module"] = program("tests", "integration", ".libs", "lockedhsm.so")
    init.write_config()
    r = init.init("start")
    assert r.returncode == 1
    assert "status 3" in r.stderr and "do not start again" in r.stderr, r.stderr + init.log()
