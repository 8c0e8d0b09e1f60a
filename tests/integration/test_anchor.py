"""A store that was rolled back, restored, copied or lost is noticed by the anchor on
the HSM and by the keeper's memory: the alarm is up until an administrator accepts it,
the log has its next name, its own leases go on."""

import base64
import json
import shutil

import pytest

from conftest import Daemon, wait_for
from varlink import Error


def copy_state(state, to):
    """The whole state of a daemon that does not run: as a snapshot of its disk."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(state, to)


def copy_store(state, to):
    """The database alone: as a backup of it."""
    for end in ("", "-wal", "-shm"):
        (to / f"store.db{end}").unlink(missing_ok=True)
        if (state / f"store.db{end}").exists():
            shutil.copy2(state / f"store.db{end}", to / f"store.db{end}")


def head(c, sign=True):
    return c.call("LogHead", sign=sign)


def mint(c):
    return c.change("Mint", role="my-app")["lease"]


def kinds(c):
    return [json.loads(line)["kind"] for line in c.call("Records")["lines"]]


def alarms(c):
    return {a["id"] for a in c.call("Status")["status"]["alarms"]}


def check_rolled_back(c, service, origin, epoch):
    """Noticed; nothing but its own leases goes on; one accepts it, with a reason."""
    wait_for(lambda: "log-rolled-back" in alarms(c), 10, "the alarm")
    wait_for(lambda: head(c)["origin"] == f"{origin}/{epoch}", 10, "the next epoch")
    assert head(c)["rolled_back"] is True
    lease = mint(c)
    alive = service.alive()
    c.change("Revoke", lease_id=lease["lease_id"])
    assert service.alive() == alive - 1
    with pytest.raises(Error) as e:
        c.change("AcceptRollback", reason="")
    assert e.value.name == "Invalid"
    c.change("AcceptRollback", reason="a rehearsal")
    assert "log-rolled-back" not in alarms(c)
    assert head(c)["rolled_back"] is False
    found = kinds(c)
    assert found.count("rollback") == found.count("rollback-accepted") == epoch
    with pytest.raises(Error) as e:
        c.change("AcceptRollback", reason="again")
    assert e.value.name == "NotFound"


@pytest.fixture
def old(ready):
    """A daemon, and copies of its state from before it went on."""
    with ready.attached() as c:
        ready.origin = head(c)["origin"]
        mint(c)
    ready.stop()
    ready.old = ready.place / "old"
    copy_state(ready.state, ready.old)
    ready.start()
    with ready.attached() as c:
        for _ in range(3):
            mint(c)
        head(c)
    ready.stop()
    return ready


def test_a_backup(old, service):
    """The keeper's own memory knows; again the next time."""
    copy_store(old.old, old.state)
    old.start()
    with old.attached() as c:
        check_rolled_back(c, service, old.origin, 1)
    old.stop()
    copy_store(old.old, old.state)
    old.start()
    with old.attached() as c:
        wait_for(lambda: "log-rolled-back" in alarms(c), 10, "the alarm")
        wait_for(lambda: head(c)["origin"] == f"{old.origin}/2", 10, "its next epoch")


def test_a_snapshot(old, service):
    """State and keeper's memory went back together: the HSM's anchor knows."""
    shutil.rmtree(old.state)
    copy_state(old.old, old.state)
    old.start()
    with old.attached() as c:
        check_rolled_back(c, service, old.origin, 1)


def test_a_restored_token(ready, service):
    """The HSM's objects and the store went back together: the keeper's memory knows."""
    token, memory, kept = ready.token.directory, ready.state / "keeper", ready.place / "kept"
    with ready.attached() as c:
        origin = head(c)["origin"]
        mint(c)
    ready.stop()
    copy_state(ready.state, ready.place / "old")
    copy_state(token, ready.place / "old-token")
    ready.start()
    with ready.attached() as c:
        for _ in range(3):
            mint(c)
    ready.stop()
    copy_state(memory, kept)
    copy_state(ready.place / "old", ready.state)
    copy_state(ready.place / "old-token", token)
    copy_state(kept, memory)
    ready.start()
    with ready.attached() as c:
        check_rolled_back(c, service, origin, 1)


def test_a_restart_does_not_forget(old, service):
    copy_store(old.old, old.state)
    old.start()
    with old.attached() as c:
        wait_for(lambda: "log-rolled-back" in alarms(c), 10, "the alarm")
        size = head(c)["size"]
    old.kill()
    old.start()
    with old.attached() as c:
        assert head(c)["rolled_back"] is True and head(c)["size"] > size
        assert kinds(c).count("rollback") == 1
        check_rolled_back(c, service, old.origin, 1)


def test_a_clone(old, service, place):
    """Two daemons go on from one store, with one HSM: whoever comes second is told."""
    (place / "clone").mkdir()
    clone = Daemon(place / "clone", old.token, service)
    copy_state(old.old, clone.state)
    old.start()
    with old.attached() as c:
        mint(c)
        clone.start()
        with clone.attached() as d:
            check_rolled_back(d, service, old.origin, 1)
        clone.end()
        # The first notices when it has to write its anchor: at its end, or after
        # anchor_seconds; and says so from its next start on.
    old.stop()
    old.start()
    with old.attached() as c:
        wait_for(lambda: "log-rolled-back" in alarms(c), 10, "the alarm")
        wait_for(lambda: head(c)["origin"] == f"{old.origin}/2", 10, "its next epoch")


def test_a_keeper_that_forgot(ready, service):
    """The keeper's memory is gone, the anchor is not: it goes on, and each checkpoint
    tells."""
    with ready.attached() as c:
        mint(c)
        origin = head(c)["origin"]
    ready.stop()
    (ready.state / "keeper" / "ledger").unlink()
    ready.start()
    with ready.attached() as c:
        mint(c)
        h = head(c)
        assert h["origin"] == origin and h["rolled_back"] is False
        assert "\nresumed 1\n" in h["checkpoint"]
        assert alarms(c) == set()


def test_a_killed_daemon_is_none(ready, service):
    """kill -9, and the keeper's memory is ahead of nothing."""
    for _ in range(5):
        with ready.attached() as c:
            mint(c)
        ready.kill()
        ready.start()
    with ready.attached() as c:
        h = head(c)
        assert h["rolled_back"] is False and h["origin"].count("/") == 1
        assert alarms(c) == set()


def test_exported_records_go(ready, service):
    """Nothing is pruned that was not exported; the tree goes on without it."""
    with ready.attached() as c:
        while head(c, sign=False)["size"] <= 600:
            mint(c)
        h = head(c)
        size, note = h["signed"], h["checkpoint"]
        with pytest.raises(Error) as e:
            c.change("PruneLog", size=256)
        assert "exported" in e.value.text
        with pytest.raises(Error):
            c.change("MarkExported", size=size + 1000)
        c.change("MarkExported", size=size)
        # A checkpoint of another log, or of another past, says nothing of these records.
        origin, n, root, rest = note.split("\n", 3)
        for forged, told in (
            ("\n".join([origin, n, base64.b64encode(bytes(32)).decode(), rest]), "are not those"),
            ("\n".join([origin, str(int(n) - 1), root, rest]), f"{int(n) - 1} records"),
            ("nonsense", "note"),
        ):
            with pytest.raises(Error) as e:
                c.change("PruneLog", size=size, checkpoint=forged)
            assert e.value.name == "Invalid" and "nothing is pruned" in e.value.text and told in e.value.text
        # Nothing is new since the anchor's time, which is renewed all the same.
        assert c.change("PruneLog", size=size, checkpoint=note)["pruned"] == 512
        assert head(c)["first"] == 513 and head(c)["exported"] == size
        with pytest.raises(Error) as e:
            c.call("LogProof", seq=1)
        assert e.value.name == "NotFound"
        assert c.call("LogProof", seq=520)["index"] == 519
    ready.stop()
    ready.start()
    with ready.attached() as c:
        assert head(c)["rolled_back"] is False
