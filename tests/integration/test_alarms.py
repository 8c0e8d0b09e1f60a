"""Each alarm of spec/RUNBOOK.md, rehearsed: its fact is made, it shows in status
with its remedy, the page's remedy is followed, and it is gone."""

import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

import conftest
from clocks import set_clock, spawn_with_clock
from conftest import PIN, PROJECT, Service, Token, not_sanitized, others_can_run, patience, program, wait_for
from mounts import mount, own_mounts, unmount
from varlink import Error

LATE = 45  # seconds; a machine may be busy


class Operator:
    """What somebody types who was called by an alarm."""

    def __init__(self, daemon):
        self.daemon, self.uid = daemon, None
        self.environment = {
            **os.environ,
            "HSMINT_SOCKET": str(daemon.socket),
            "HSMINT_CONFIG": str(daemon.config),
        }

    def run(self, *words, status=0, input=None, seconds=60):
        r = subprocess.run(
            [program("hsmint"), *words],
            env=self.environment,
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            user=self.uid,
        )
        assert status is None or r.returncode == status, (words, r.returncode, r.stdout, r.stderr)
        return r.stdout

    def alarms(self, id, obj=None):
        listed = json.loads(self.run("status", "--json"))["alarms"]
        return [a for a in listed if a["id"] == id and obj in (None, a["object"])]

    def sees(self, id, obj=None):
        """The alarm, once it is up: with since when and what to do."""
        alarm = wait_for(lambda: self.alarms(id, obj), LATE, f"alarm {id}")[0]
        explained = json.loads(self.run("explain", id, "--json"))
        assert alarm["remedy"] == explained["remedy"] and alarm["severity"] == explained["severity"]
        assert abs(alarm["since_ms"] / 1000 - time.time()) < 7200
        shown = self.run("status")
        assert f"{id} ({alarm['severity']}) since " in shown and alarm["remedy"] in shown
        assert f"alarm {id}, " in self.daemon.log()
        doctor = json.loads(self.run("doctor", "--json", status=None))
        said = next(c for c in doctor["checks"] if c["id"] == "alarms")
        assert said["verdict"] in ("warn", "fail") and id in said["text"], said
        return alarm

    def sees_it_over(self, id, obj=None):
        wait_for(lambda: not self.alarms(id, obj), LATE, f"the end of alarm {id}")
        wait_for(lambda: f"alarm {id}, " in self.daemon.log() and ": over" in self.daemon.log())

    def mint(self, *words, status=0):
        return self.run("mint", "my-app", "--json", *words, status=status)

    def set_key(self, service, key=None):
        self.run(
            "config",
            "set",
            "admin_api_key=-",
            "organization_id=org-adminsim",
            f"api_endpoint={service.url}",
            "--keep-first",
            input=key or service.admin_key,
        )


@pytest.fixture
def operator(ready):
    return Operator(ready)


# ---- HSM and keeper ----


def test_hsm_down(operator, ready):
    away = ready.token.directory.with_name("away")
    ready.token.directory.rename(away)
    operator.sees("hsm-down")
    operator.mint(status=5)
    checks = json.loads(operator.run("doctor", "--json", status=1))["checks"]
    assert next(c for c in checks if c["id"] == "token")["verdict"] == "fail"
    away.rename(ready.token.directory)
    operator.sees_it_over("hsm-down")
    operator.mint()


def test_hsm_keys(operator, ready):
    """Somebody attached another token with the same label and PIN."""
    away = ready.token.directory.with_name("away")
    ready.token.directory.rename(away)
    other = Token(ready.place / "other" if (ready.place / "other").mkdir() else ready.place / "other")
    shutil.copytree(other.directory, ready.token.directory)
    ready.stop()
    ready.start()
    operator.sees("hsm-keys")
    operator.mint(status=1)
    shutil.rmtree(ready.token.directory)
    away.rename(ready.token.directory)
    operator.sees_it_over("hsm-keys")
    operator.mint()


def test_pin_held(operator, ready):
    ready.stop()
    ready.pin_file.write_text("000000")
    ready.start()
    operator.sees("pin-held")
    operator.mint(status=3)
    ready.pin_file.write_text(PIN)
    operator.run("hsm", "unlock")
    operator.sees_it_over("pin-held")
    operator.mint()


def test_pin_low(operator, ready):
    """SoftHSM2 says so after one wrong PIN, whoever gave it."""
    ready.stop()
    ready.pin_file.write_text("000000")
    ready.start()
    operator.sees("pin-low")
    ready.pin_file.write_text(PIN)
    operator.run("hsm", "unlock")
    operator.sees_it_over("pin-low")


def test_pin_locked(daemon_stopped):
    """SoftHSM2 locks none: a library before it says so."""
    says = daemon_stopped.place / "says"
    says.write_text("")
    daemon_stopped.settings["hsm.env"] |= {
        "HSM_BEHIND": daemon_stopped.token.module,
        "HSM_SAYS": says,
        "HSM_LOGINS": daemon_stopped.place / "logins",
    }
    daemon_stopped.settings["hsm"]["module"] = program("tests", "integration", ".libs", "lockedhsm.so")
    operator = Operator(daemon_stopped.start().prepare())
    says.write_text("locked")
    operator.sees("pin-locked", "token")
    checks = json.loads(operator.run("doctor", "--json", status=1))["checks"]
    assert next(c for c in checks if c["id"] == "pin")["verdict"] == "fail"
    says.write_text("")  # the security officer was here
    operator.run("hsm", "unlock")
    operator.sees_it_over("pin-locked", "token")
    operator.mint()


def test_locked(operator, ready):
    operator.run("lock")
    operator.sees("locked")
    assert operator.run("status").startswith("hsmint is locked: type `hsmint login`\n")
    operator.run("login")
    operator.sees_it_over("locked")
    operator.mint()


def test_keeper(daemon_stopped):
    daemon_stopped.settings["hsm"]["deadline"] = "2s"
    ready = daemon_stopped.start().prepare()
    operator = Operator(ready)
    os.kill(ready.keeper(), signal.SIGSTOP)
    began = time.monotonic()
    said = operator.run("status")  # while it hangs, and waits for nobody
    assert time.monotonic() - began < patience(1.5) and "token" in said
    operator.sees("keeper")
    operator.mint()  # the next one serves
    operator.sees_it_over("keeper")


def test_seccomp(operator, ready):
    not_sanitized("a sanitizer's build has no filter")
    ready.stop()
    ready.settings["daemon"]["seccomp"] = "log"
    ready.start()
    operator.sees("seccomp")
    ready.stop()
    ready.settings["daemon"]["seccomp"] = "yes"
    ready.start()
    assert operator.alarms("seccomp") == []


# ---- the admin key ----


def test_admin_key(operator, ready, service):
    """The sealed key is damaged, here and on the HSM."""
    ready.stop()
    db = sqlite3.connect(ready.state / "store.db")
    db.execute("UPDATE org SET admin_blob = zeroblob(64)")
    db.commit()
    db.close()
    subprocess.run(
        ["pkcs11-tool", "--module", ready.token.module, "--token-label", ready.token.label, "--login", "--pin", PIN]
        + ["--delete-object", "--type", "data", "--label", "hsmint-admin-key-default"],
        env={**os.environ, **ready.token.environment},
        check=True,
        capture_output=True,
    )
    ready.start()
    operator.sees("admin-key", "default")
    operator.mint(status=1)
    operator.set_key(service)
    operator.sees_it_over("admin-key", "default")
    operator.mint()


def new_admin_key(service, **fields):
    return service.control("admin_keys", {"name": "new", **fields})["value"]


def test_admin_key_refused(operator, ready, service):
    id = json.loads(operator.run("config", "show", "--json"))["admin_api_key_id"]
    new = new_admin_key(service)
    service.control(f"keys/{id}", {"delete": True})
    operator.mint(status=1)
    operator.sees("admin-key-refused", "default")
    operator.run("doctor", "--online", status=1)
    operator.set_key(service, new)
    operator.sees_it_over("admin-key-refused", "default")
    operator.mint()


def test_admin_key_refused_is_found_by_the_probe(operator, ready, service):
    """A 403 to a mint says nothing of the key; the probe does."""
    service.fault(kind="status", status=403, times=-1, path="*/service_accounts", method="POST")
    operator.mint(status=1)
    time.sleep(4)
    assert operator.alarms("admin-key-refused") == []
    service.fault(kind="status", status=403, times=-1, path="*/admin_api_keys/*")
    operator.mint(status=1)
    operator.sees("admin-key-refused", "default")
    service.control("faults", method="DELETE")
    operator.sees_it_over("admin-key-refused", "default")


def test_admin_key_expires(operator, ready, service):
    new = new_admin_key(service, expires_in_seconds=86400)
    operator.set_key(service, new)
    operator.sees("admin-key-expires", "default")
    ready.stop()
    ready.start()
    operator.sees("admin-key-expires", "default")
    operator.set_key(service)
    operator.sees_it_over("admin-key-expires", "default")


# ---- the service ----


def test_service_unreachable(place, token):
    state = place / "world"
    service = Service(place, "--state", state)
    ready = conftest.Daemon(place, token, service).start().prepare()
    try:
        operator = Operator(ready)
        port = service.url.rsplit(":", 1)[1].split("/")[0]
        service.stop()
        operator.mint(status=5)
        operator.sees("service-unreachable", "default")
        again = Service(place, "--state", state, "--port", port)
        try:
            operator.run("doctor", "--online", status=None)
            operator.sees_it_over("service-unreachable", "default")
            operator.mint()
        finally:
            again.stop()
    finally:
        ready.end()
        service.stop()


@pytest.mark.parametrize(
    "id, fault",
    [
        ("service-failing", {"kind": "status", "status": 503}),
        ("service-failing", {"kind": "not_json"}),
        ("service-rate", {"kind": "status", "status": 429}),
    ],
)
def test_service_is_ill(operator, service, id, fault):
    service.fault(times=-1, **fault)
    operator.mint(status=None)
    operator.sees(id, "default")
    service.control("faults", method="DELETE")
    # Nobody mints: the probe finds out.
    operator.sees_it_over(id, "default")
    operator.mint()


def test_service_refusing(operator, service):
    service.fault(kind="status", status=400, times=-1, path="*/service_accounts", method="POST")
    for _ in range(3):
        operator.mint(status=1)
    operator.sees("service-refusing", "default")
    assert operator.alarms("admin-key-refused") == []
    service.control("faults", method="DELETE")
    operator.mint()
    operator.sees_it_over("service-refusing", "default")


def test_expiry_ignored(operator, service):
    service.control("settings", {"expiry": "ignore"})
    operator.mint()
    operator.sees("expiry-ignored", "default")
    service.control("settings", {"expiry": "honour"})
    operator.mint()
    operator.sees_it_over("expiry-ignored", "default")


def test_expiry_refused(operator, service):
    service.control("settings", {"expiry": "refuse"})
    operator.mint()
    operator.sees("expiry-refused", "default")
    service.control("settings", {"expiry": "honour"})
    operator.set_key(service)
    operator.sees_it_over("expiry-refused", "default")
    operator.mint()


def test_project_gone(operator, service):
    new = service.control("projects", {"name": "new"})["id"]
    status, _ = service.request("POST", f"{service.url}/organization/projects/{PROJECT}/archive", bearer=service.admin_key)
    assert status == 200
    operator.mint(status=1)
    operator.sees("project-gone", "default/my-app")
    operator.run("role", "set", "my-app", f"project_id={new}")
    operator.sees_it_over("project-gone", "default/my-app")
    operator.mint()


# ---- leases ----


def test_revocation_late_and_waiting(operator, service):
    operator.mint("--ttl", "2s")
    service.fault(kind="drop", when="before", times=-1, method="DELETE")
    operator.sees("revocation-waits", "default")
    operator.sees("revocation-late")
    assert service.alive() == 1
    service.control("faults", method="DELETE")
    operator.sees_it_over("revocation-waits", "default")
    operator.sees_it_over("revocation-late")
    assert service.alive() == 0


def test_key_lives(daemon_stopped, service):
    spawn_with_clock(daemon_stopped)
    operator = Operator(daemon_stopped.prepare())
    operator.run("role", "set", "my-app", "prove_death=true")
    service.control("settings", {"revoke_ms": 600000})
    lease = json.loads(operator.mint())
    operator.run("lease", "revoke", lease["lease_id"])
    assert operator.alarms("key-lives") == []
    set_clock(daemon_stopped, 61, 61)
    alarm = operator.sees("key-lives", lease["lease_id"])
    assert "still takes the key" in alarm["text"]
    (account,) = [a for p in service.control("state")["projects"] for a in p["service_accounts"]]
    service.control(f"keys/{account['key_ids'][0]}", {"expire": True})
    set_clock(daemon_stopped, 122, 122)
    operator.sees_it_over("key-lives")


# ---- the host ----

@pytest.fixture
def small(daemon_stopped):
    """The state on a file system of 64 MiB of its own."""
    own_mounts()
    daemon_stopped.state.mkdir(mode=0o700)
    assert mount(daemon_stopped.state, "tmpfs", options="size=64m,mode=0700")
    yield daemon_stopped.start().prepare()
    daemon_stopped.stop()
    unmount(daemon_stopped.state)


def test_disk(small):
    operator = Operator(small)
    lease = json.loads(operator.mint())["lease_id"]
    with open(small.state / "filler", "wb") as f:
        os.posix_fallocate(f.fileno(), 0, 44 << 20)
    operator.sees("disk")
    time.sleep(1.1)  # the store looks once a second
    operator.mint(status=1)
    operator.run("lease", "revoke", lease)
    assert small.service.alive() == 0
    (small.state / "filler").unlink()
    operator.sees_it_over("disk")
    time.sleep(1.1)
    operator.mint()


def test_state_read_only(daemon_stopped):
    """Its owner changed. (A disk that is sick makes its file system read-only under
    open files; mount does not.) Root may write all the same: another user."""
    d, uid = daemon_stopped, 65533
    operator = Operator(d)
    if os.geteuid() == 0:
        others_can_run("hsmintd", uid)
        d.write_config()
        d.write_config = lambda: None  # it is theirs now
        subprocess.run(["chown", "-R", str(uid), d.place], check=True)
        operator.uid = uid
        d.spawn(user=uid, group=uid, extra_groups=[])
    else:
        d.spawn()
    wait_for(lambda: operator.run("status", "--json", status=None), 15)
    (d.state / "store.db").chmod(0o400)
    operator.sees("state-read-only", str(d.state))
    (d.state / "store.db").chmod(0o600)
    operator.sees_it_over("state-read-only", str(d.state))


def test_store_broken(operator, ready):
    backup = ready.place / "backup.db"
    db = sqlite3.connect(ready.state / "store.db")
    db.execute("VACUUM INTO ?", (str(backup),))
    db.close()
    (ready.state / "store.db").unlink()
    operator.sees("store-broken")
    ready.stop()
    for end in ("", "-wal", "-shm"):
        (ready.state / f"store.db{end}").unlink(missing_ok=True)
    shutil.copy(backup, ready.state / "store.db")
    (ready.state / "store.db").chmod(0o600)
    ready.start()
    assert operator.alarms("store-broken") == []
    operator.mint()


def copy_store(state, to):
    """The store as it is, beside a daemon that does not run."""
    to.mkdir(mode=0o700, exist_ok=True)
    for end in ("", "-wal", "-shm"):
        (to / f"store.db{end}").unlink(missing_ok=True)
        if (state / f"store.db{end}").exists():
            shutil.copy2(state / f"store.db{end}", to / f"store.db{end}")


def test_log_unsigned(daemon_stopped):
    """The HSM refuses its log key, and no other."""
    d, says = daemon_stopped, daemon_stopped.place / "says"
    says.write_text("")
    d.settings["hsm.env"] |= {
        "HSM_BEHIND": d.token.module,
        "HSM_SAYS": says,
        "HSM_LOGINS": d.place / "logins",
        "HSM_MUTE": "hsmint-log",
    }
    d.settings["hsm"]["module"] = program("tests", "integration", ".libs", "lockedhsm.so")
    d.settings["audit"] = {"checkpoint_seconds": "1s"}
    operator = Operator(d.start().prepare())
    operator.mint()
    says.write_text("mute")
    operator.mint()  # something new to be signed
    operator.sees("log-unsigned", "log")
    says.write_text("")
    operator.sees_it_over("log-unsigned", "log")
    operator.mint()


def test_log_rolled_back(operator, ready):
    ready.stop()
    copy_store(ready.state, ready.place / "old")
    ready.start()
    operator.mint()
    ready.stop()
    copy_store(ready.place / "old", ready.state)
    ready.start()
    operator.sees("log-rolled-back", "log")
    operator.mint()
    operator.run("audit", "accept-rollback", "--reason", "the rehearsal")
    operator.sees_it_over("log-rolled-back", "log")


def with_clock(daemon):
    spawn_with_clock(daemon)
    return Operator(daemon.prepare())


def test_admin_key_left(daemon_stopped, service):
    operator = with_clock(daemon_stopped)
    service.fault(kind="status", status=500, method="DELETE", path="*/admin_api_keys/*", times=-1)
    operator.run("config", "compromised")
    wait_for(lambda: json.loads(operator.run("config", "show", "--json"))["retiring"][0]["tries"] > 0)
    assert operator.alarms("admin-key-left") == []
    set_clock(daemon_stopped, 660, 660)  # the host slept
    operator.sees("admin-key-left", "default")
    service.control("faults", method="DELETE")
    operator.sees_it_over("admin-key-left", "default")
    operator.mint()


def test_hsm_rotation(daemon_stopped, service):
    """A lease's key that does not open: gone with the lease, or left with the old key."""
    d = daemon_stopped
    operator = with_clock(d)
    operator.run("role", "set", "my-app", "keep_value=true")
    leases = [json.loads(operator.mint())["lease_id"] for _ in range(2)]
    for n, lease in enumerate(leases):
        d.stop()
        with sqlite3.connect(d.state / "store.db") as db:
            (blob,) = db.execute("SELECT sealed FROM lease WHERE id = ?", (lease,)).fetchone()
            db.execute("UPDATE lease SET sealed = ? WHERE id = ?", (blob[:-1] + bytes([blob[-1] ^ 1]), lease))
        db.close()
        spawn_with_clock(d, 660 * n, 660 * n)
        operator.mint()
        operator.run("hsm", "rotate", "seal", status=None)
        assert operator.alarms("hsm-rotation") == []
        assert lease in operator.run("hsm", "show")
        set_clock(d, 660 * (n + 1), 660 * (n + 1))  # the host slept
        assert lease in operator.sees("hsm-rotation", "seal")["text"]
        if n == 0:
            operator.run("lease", "revoke", lease)
        else:
            said = operator.run("hsm", "rotate", "seal", "--abandon")
            assert "abandoned" in said and "has to stay on the HSM" in said
        operator.sees_it_over("hsm-rotation", "seal")
        operator.mint()


def test_rotation_overdue(daemon_stopped, service):
    operator = with_clock(daemon_stopped)
    service.fault(kind="status", status=403, method="POST", path="*/admin_api_keys", times=-1)
    operator.run("config", "set", "rotation_period=10m")
    set_clock(daemon_stopped, 720)
    operator.sees("rotation-overdue", "default")
    service.control("faults", method="DELETE")
    operator.run("config", "rotate")
    operator.sees_it_over("rotation-overdue", "default")
    operator.mint()


def test_key_compromised(daemon_stopped):
    operator = Operator(daemon_stopped.start().prepare())
    operator.run("lock")
    with pytest.raises(Error) as e, daemon_stopped.attached() as c:
        c.change("CompromisedHsmKey", name="call")  # the command would log in
    assert e.value.name == "Locked"
    alarm = operator.sees("key-compromised", "hsm/call")
    assert "hsmint-call-1 was declared compromised" in alarm["text"]
    operator.run("login")
    operator.sees_it_over("key-compromised", "hsm/call")
    keys = {k["label"]: k["state"] for k in json.loads(operator.run("hsm", "show", "--json"))["keys"]}
    assert keys["hsmint-call-1"] == "compromised" and keys["hsmint-call-2"] == "active"
    operator.mint()


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_clock_stepped(daemon_stopped, seconds):
    operator = with_clock(daemon_stopped)
    set_clock(daemon_stopped, seconds)
    alarm = operator.sees("clock-stepped")
    assert ("3600 s later" if seconds > 0 else "3600 s earlier") in alarm["text"].replace("3599", "3600")
    set_clock(daemon_stopped, 0)
    operator.sees_it_over("clock-stepped")


# ---- callers ----


def test_limits(daemon_stopped):
    daemon_stopped.settings["limits"] = {"connections": 8}
    ready = daemon_stopped.start().prepare()
    operator = Operator(ready)
    mad = [ready.connect() for _ in range(7)]
    for _ in range(3):
        operator.alarms("limits")  # room for one is left
    mad += [ready.connect() for _ in range(3)]
    wait_for(lambda: "alarm limits, connections: uid " in ready.log(), what="the alarm")
    for c in mad:
        c.close()
    operator.sees("limits", "connections")
    operator.sees_it_over("limits", "connections")


def test_policy_files(daemon_stopped):
    d, operator = daemon_stopped, Operator(daemon_stopped)
    if os.geteuid() != 0:
        pytest.skip("only root starts a daemon that somebody else asks")
    operator.uid = 65533
    others_can_run("hsmint", operator.uid)
    folder = d.place / "policies.d"
    folder.mkdir(mode=0o755)
    d.settings["daemon"] |= {"mode": "system", "policies_dir": folder}
    for path in (d.place, d.run):
        path.chmod(0o755)
    good = {"subjects": ["user:65533"], "capabilities": ["auditor"]}
    (folder / "one.json").write_text(json.dumps(good))
    d.spawn("--system")
    wait_for(lambda: operator.run("status", "--json", status=None), 15)
    assert operator.alarms("policy-files") == []
    (folder / "one.json").write_text('{"subjects":\n ["user:root"],\n oops}')
    d.process.send_signal(signal.SIGHUP)
    alarm = operator.sees("policy-files")  # by the policy from before
    assert "one.json:3" in alarm["text"], alarm
    (folder / "one.json").write_text(json.dumps(good))
    d.process.send_signal(signal.SIGHUP)
    operator.sees_it_over("policy-files")


def test_peers_hidden(daemon_stopped):
    """/proc with hidepid, for a daemon of its own user."""
    if os.geteuid() != 0:
        pytest.skip("root alone makes a daemon of another user")
    own_mounts()
    d, uid = daemon_stopped, 65533
    d.settings["daemon"]["mode"] = "system"
    d.place.chmod(0o755)
    d.run.chmod(0o755)
    d.write_config()
    d.write_config = lambda: None
    subprocess.run(["chown", "-R", str(uid), d.place], check=True)
    assert mount("/proc", "proc", options="hidepid=invisible")
    try:
        d.spawn("--system", user=uid, group=uid, extra_groups=[])
        wait_for(lambda: "alarm peers-hidden, /proc: " in d.log(), LATE)
    finally:
        unmount("/proc")
    wait_for(lambda: "alarm peers-hidden, /proc: over" in d.log(), LATE)


# ---- the state, and the service's ----


def minted(operator):
    return json.loads(operator.mint())["lease_id"]


def test_unknown_accounts(operator, ready, service):
    lease = minted(operator)
    ready.stop()
    with sqlite3.connect(ready.state / "store.db") as db:
        db.execute("DELETE FROM lease WHERE id = ?", (lease,))
    db.close()
    ready.start()
    operator.run("reconcile")
    operator.sees("unknown-accounts", "unknown")
    wait_for(lambda: service.alive() == 0, LATE)
    operator.run("reconcile")
    operator.sees_it_over("unknown-accounts")


def test_accounts_vanished(operator, ready, service):
    lease = minted(operator)
    (account,) = service.accounts()
    ready.stop()
    with sqlite3.connect(ready.state / "store.db") as db:
        db.execute("UPDATE lease SET issued_ms = issued_ms - 600000 WHERE id = ?", (lease,))
    db.close()
    service.control(f"service_accounts/{account['id']}", method="DELETE")
    ready.start()
    operator.run("reconcile")
    operator.sees("accounts-vanished", "vanished")
    wait_for(lambda: operator.run("lease", "show", lease).count("revoked") == 1, LATE, "the lease to end")
    operator.run("reconcile")
    operator.sees_it_over("accounts-vanished")


def test_state_restored(operator, ready, service):
    backup = ready.place / "backup"
    operator.run("backup", backup)
    minted(operator)  # the backup does not know it
    ready.stop()
    operator.run("restore", backup, "--state", ready.state)
    ready.start()
    operator.sees("state-restored", "state")
    assert "this run only reported" in operator.run("reconcile")
    assert service.alive() == 1
    assert "accept-rollback" in json.dumps(operator.sees("log-rolled-back"))
    operator.run("reconcile", "--revoke", status=1)
    operator.run("audit", "accept-rollback", "--reason", "the backup was restored")
    operator.sees_it_over("log-rolled-back")
    operator.run("reconcile", "--revoke")
    operator.sees_it_over("state-restored")
    wait_for(lambda: service.alive() == 0, LATE)


def test_recovery_key(operator, ready):
    """A key that is too weak, or none: the HMAC key is not kept, and it is said."""
    bad = ready.place / "recovery.pub"
    bad.write_text("no key\n")
    ready.settings["hsm"]["recovery_key"] = bad
    ready.stop()
    ready.start()
    operator.sees("recovery-key", "hsm")
    private = ready.place / "recovery.pem"
    for bits in (2048, 3072):
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}", "-out", private],
                       check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", bad], check=True)
        if bits < 3072:
            ready.stop()
            ready.start()
            assert "3072 bits" in operator.sees("recovery-key", "hsm")["text"]
    os.kill(ready.keeper(), signal.SIGKILL)  # the next one reads it anew
    operator.sees_it_over("recovery-key")


def test_admin_key_used(operator, ready, service):
    """Somebody has the key: makes an account and an admin key, and takes one of ours away."""
    minted(operator)
    account = f"{service.url}/organization/projects/{PROJECT}/service_accounts"
    assert "0 uses of the admin key" in operator.run("reconcile", "--audit")
    service.request("POST", account, {"name": "intruder"}, bearer=service.admin_key)
    service.request("POST", f"{service.url}/organization/admin_api_keys", {"name": "spare"}, bearer=service.admin_key)
    report = json.loads(operator.run("reconcile", "--audit", "--json", status=1))
    uses = [f for f in report["findings"] if f["finding"] == "unknown-use"]
    assert {f["account"] for f in uses} == {"service_account.created", "tenant.admin_api_key.created"}
    assert all(f["actor"].startswith("key_") and f["time"].startswith("20") for f in uses)
    operator.sees("admin-key-used", "default")
    operator.run("config", "rotate")
    time.sleep(1.1)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    operator.run("reconcile", "--audit", "--from", since)
    operator.sees_it_over("admin-key-used")


# ---- the page ----

def test_every_alarm_is_rehearsed():
    text = pathlib.Path(__file__).read_text()
    page = (conftest.SOURCE / "spec" / "RUNBOOK.md").read_text()
    ids = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert len(ids) > 20
    for id in ids:
        assert any(f"{begin}{id}" in text for begin in ('sees("', '("', '"alarm ')), id
