"""A year under a moved clock, on the real daemon, keeper, SoftHSM2 and double: every planned
rotation, every window's begin and end, and outages of all parts. When and why each rotation
took place is read from the audit log, printed, and held against a list that is reckoned here
from what hsmint(1) promises. The year begins on 1 December 2027: it has a 29 February.

Usual run: its first quarter. HSMINT_LONG=1: all of it, for both ways to plan."""

import contextlib
import datetime
import json
import math
import os
import sqlite3
import time

import pytest

from clocks import set_clock, spawn_with_clock
from conftest import Service, wait_for
from mounts import fill, mount, own_mounts, unmount
from test_rotate import alive, key_id, mints, under_way
from test_rotate_when import change, config, give, new_key
from varlink import Error

LONG = os.environ.get("HSMINT_LONG")
MINUTE, HOUR, DAY = 60, 3600, 86400
WEEK = 7 * DAY
START = int(datetime.datetime(2027, 12, 1, tzinfo=datetime.timezone.utc).timestamp())
END = START + (366 if LONG else 92) * DAY
SOON = 30  # a rotation that is due now is over by then, seconds of the moved clock


def text(t):
    return datetime.datetime.fromtimestamp(t, datetime.timezone.utc).strftime("%a %Y-%m-%d %H:%M:%S")


# ---- what hsmint(1) promises ----


class Every30Days:
    fields = {"rotation_period": "720h"}
    cause, interval, window = "period", 30 * DAY, None
    late = HOUR  # an hour, or a tenth of the period if that is less

    def after(self, t):
        return t + self.interval

    def latest(self, t):
        return None


class MondaysAtThree:
    fields = {"rotation_schedule": "0 3 * * 1", "rotation_window": "2h"}
    cause, interval, window = "schedule", WEEK, 2 * HOUR
    late = window

    def latest(self, t):
        """1970 began on a Thursday."""
        monday = 4 * DAY + 3 * HOUR
        return t - (t - monday) % WEEK

    def after(self, t):
        return self.latest(t) + WEEK


class Reckoning:
    """What is to happen, told only what time it is and what is in the way."""

    def __init__(self, plan, last):
        self.plan, self.last, self.end = plan, last, None
        self.slack = max(4 * plan.interval, 30 * DAY)
        self.rows = []  # (when, cause)

    def near_end(self):
        """Half of the slack is left; or half of the life of a key that was made with less."""
        return self.end - min(self.slack, self.end - self.last) / 2 if self.end else float("inf")

    def why(self, t):
        """The cause that makes it due now: the one that came up first."""
        plan, found = self.plan, []
        planned = plan.after(self.last)
        if self.last > t + HOUR:  # a clock that was set back: it cannot be told when it was
            planned = plan.latest(t) or t
            found = [] if plan.window and t > planned + plan.window else [(planned, plan.cause)]
        elif plan.window and planned <= plan.latest(t) and t <= plan.latest(t) + plan.window:
            found.append((plan.latest(t), plan.cause))
        elif not plan.window and planned <= t:
            found.append((planned, plan.cause))
        if t >= self.near_end():
            found.append((self.near_end(), "expiry"))
        return min(found)[1] if found and not self.expired(t) else None

    def expired(self, t):
        return bool(self.end) and t >= self.end

    def rotated(self, t, cause):
        self.rows.append((t, cause))
        self.last = t
        self.end = min(self.plan.after(t) + self.slack, t + 365 * DAY)

    def alarms(self, t):
        up = set()
        if self.last <= t + HOUR and t >= self.plan.after(self.last) + self.plan.late:
            up.add("rotation-overdue")
        if t >= self.near_end():
            up.add("admin-key-expires")
        return up


# ---- what happens ----


class Double(Service):
    """Goes away, and comes back with its world, its address and its clock."""

    def __init__(self, place):
        self.place = place
        super().__init__(place, "--state", place / "world")

    def go(self):
        self.stop()

    def come(self, offset_s):
        port, control = (u.split(":")[2].split("/")[0] for u in (self.url, self.control_url))
        super().__init__(self.place, "--state", self.place / "world", "--port", port, "--control-port", control)
        self.control("settings", {"clock_offset_s": offset_s})


@pytest.fixture
def service(place):
    double = Double(place)
    yield double
    double.stop()


class Year:
    def __init__(self, daemon, service, plan):
        self.daemon, self.service, self.plan = daemon, service, plan
        self.now, self.set_back = START, 0
        self.missing = set()  # of "service", "daemon", "HSM", "disk"
        self.notes = {}  # of a rotation: what was in its way
        self.turn(START)
        spawn_with_clock(daemon, self.offset, self.offset)
        daemon.prepare()
        self.key = key_id(daemon)
        change(daemon, fields=plan.fields)
        self.reckoning = Reckoning(plan, self.last_rotated())

    def last_rotated(self):
        return datetime.datetime.fromisoformat(config(self.daemon)["last_rotated"]).timestamp()

    def turn(self, t):
        self.now = t
        self.offset = math.ceil(t - time.time())
        set_clock(self.daemon, self.offset - self.set_back, self.offset)
        if "service" not in self.missing:
            self.service.control("settings", {"clock_offset_s": self.offset})

    def at(self, t, note=None):
        """It is t: what is due takes place, and nothing else does."""
        assert t >= self.now, (text(t), text(self.now))
        self.turn(t)
        self.look(note)

    def look(self, note=None):
        shown = self.now - self.set_back  # by the daemon's clock
        if "daemon" in self.missing:
            return
        with contextlib.suppress(Error):
            change(self.daemon)  # it looks what is due whenever a setting changes
        cause = self.reckoning.why(shown)
        if cause and not self.missing:
            self.rotates(shown, cause, note)
        else:
            time.sleep(0.15)
        assert key_id(self.daemon) == self.key, f"{text(shown)}: rotated; due: {cause}, away: {self.missing}"
        expected = self.reckoning.alarms(shown)
        about = {"rotation-overdue", "admin-key-expires"}
        wait_for(lambda: self.alarms() & about == expected, 15, f"{text(shown)}: alarms {expected}")

    def alarms(self):
        with self.daemon.attached() as c:
            return {a["id"] for a in c.call("Status")["status"]["alarms"]}

    def rotates(self, shown, cause, note):
        wait_for(lambda: key_id(self.daemon) != self.key, 30, f"{text(shown)}: a rotation by {cause}")
        self.key = key_id(self.daemon)
        told, at = config(self.daemon), self.last_rotated()
        assert shown <= at <= shown + SOON, (text(shown), told)
        self.reckoning.rotated(shown, cause)
        self.notes[self.key] = note
        self.settle()
        # What the service was told, by its clock; ours has the same end.
        (key,) = self.service.control("state?alive=1")["admin_keys"]
        life = self.reckoning.end - self.reckoning.last
        assert abs(key["expires_at"] - at - self.set_back - life) <= SOON, (key, life / DAY)
        assert key["expires_at"] * 1000 == told["admin_api_key_expires_ms"]
        self.reckoning.last, self.reckoning.end = at, key["expires_at"]

    def settle(self):
        """The old one is dead, none but ours is left, and it works."""
        self.turn(self.now + 10)  # calls in flight have ended
        change(self.daemon)
        wait_for(lambda: not under_way(self.daemon), 30, "the old key's end")
        assert alive(self.service) == [self.key]
        assert self.service.accepts(mints(self.daemon))

    # ---- outages ----

    def without(self, what, since, until, looks=(), note=None):
        """`what` is away; the daemon looks at these times, and when it is back."""
        self.at(since)
        self.missing.add(what)
        back = getattr(self, "lose_" + what.lower())()
        for t in sorted(looks):
            self.at(t)
        self.turn(until)
        self.missing.discard(what)
        back()
        self.look(note or f"{what} away {self.span(until - since)}")

    @staticmethod
    def span(s):
        return f"{s / DAY:.0f} d" if s >= 2 * DAY else f"{s / HOUR:.0f} h"

    def lose_service(self):
        self.service.go()
        return lambda: self.service.come(self.offset)

    def lose_answers(self):
        """It is there, and does nothing but fail."""
        self.service.fault(kind="status", status=503, times=-1)
        return lambda: self.service.control("faults", method="DELETE")

    def lose_daemon(self):
        self.daemon.stop()
        return lambda: spawn_with_clock(self.daemon, self.offset - self.set_back, self.offset)

    def lose_hsm(self):
        here = self.daemon.token.directory
        here.rename(here.with_name("away"))

        def back():
            here.with_name("away").rename(here)
            wait_for(lambda: "hsm-down" not in self.alarms(), 20, "the HSM to be seen")

        return back

    def lose_disk(self):
        fill(self.daemon.state / "filler")
        time.sleep(1.1)  # the store looks once a second

        def back():
            (self.daemon.state / "filler").unlink()
            wait_for(lambda: "disk" not in self.alarms(), 20, "the disk to be seen")

        return back

    def clock_back(self, by, note):
        """Set back, and right again an hour later."""
        self.set_back = by
        self.at(self.now + MINUTE, note)
        self.at(self.now + HOUR)
        self.set_back = 0
        self.at(self.now + MINUTE, "clock right again")

    # ---- by hand ----

    def slack(self, s):
        change(self.daemon, fields={"rotation_slack": s})
        self.reckoning.slack = s

    def by_hand(self, note):
        """Another admin key, which is replaced at once by one that nobody has seen."""
        given = new_key(self.service)
        give(self.daemon, self.service, given["value"])
        shown = self.now
        self.notes[key_id(self.daemon)] = note
        self.reckoning.rotated(shown, "first")
        self.key = key_id(self.daemon)
        assert self.key != given["id"]
        self.settle()
        self.reckoning.end = self.service.control("state?alive=1")["admin_keys"][0]["expires_at"]

    # ---- the end ----

    def rotations(self):
        """(when, cause, old, new) of each new key that was taken, from the audit log."""
        with sqlite3.connect(f"file:{self.daemon.state}/store.db?mode=ro", uri=True) as db:
            lines = [json.loads(line) for (line,) in db.execute("SELECT line FROM record ORDER BY sequence")]
        db.close()
        return [
            (datetime.datetime.fromisoformat(r["time"]).timestamp(), r["cause"], r["old"], r["new"])
            for r in lines
            if r["kind"] == "rotate" and r["state"] == "retire" and r["tries"] == 0
        ]

    def compare(self, record_property):
        found, reckoned = self.rotations(), self.reckoning.rows
        for (at, cause, old, new), (planned, why) in zip(found, reckoned):
            assert cause == why and 0 <= at - planned <= SOON, (text(at), cause, text(planned), why)
            record_property("row", f"{text(at)}  {cause:<9}{old[:12]} → {new[:12]}  {self.notes.get(new) or ''}")
        assert len(found) == len(reckoned)
        for (*_, taken), (_, cause, gone, _) in zip(found, found[1:]):
            assert gone == taken or cause == "first", (taken, gone)
        made = self.service.control("state")["admin_keys"]
        record_property("sum", f"# {len(found)} rotations, as reckoned; {len(made)} admin keys ever, 1 alive")


@pytest.fixture
def begun(daemon_stopped, service, record_property):
    """Year of a plan; the state on a file system that can be filled."""
    d = daemon_stopped
    d.settings["hsm"]["deadline"] = "1s"
    d.settings["service"] |= {"connect_timeout": "1s", "call_timeout": "1s"}
    own_mounts()
    d.state.mkdir(mode=0o700)
    assert mount(d.state, "tmpfs", options="size=96m,mode=0700")
    d.settings["daemon"]["disk_reserve"] = "8M"
    began = time.monotonic()
    years = []

    def begin(plan):
        years.append(Year(d, service, plan))
        return years[0]

    yield begin
    if years:  # not where the test is skipped
        record_property("took", f"# {(years[0].now - START) / DAY:.0f} days in {time.monotonic() - began:.0f} s")
    d.stop()
    unmount(d.state)


def test_every_30_days(begun, record_property):
    y = begun(Every30Days())
    r = y.reckoning

    def due():
        return r.plan.after(r.last) + 1

    def on_time(note=None):
        y.at(due() - HOUR)
        y.at(due() - MINUTE)
        y.at(due(), note)

    on_time("on time")  # 31 December
    y.without("service", due() - HOUR, due() + 5 * HOUR, [due() - MINUTE, due(), due() + HOUR - MINUTE, due() + HOUR + MINUTE])
    y.without("daemon", due() - 12 * HOUR, due() + 12 * HOUR)  # 29 February
    y.at(due() - DAY)
    if LONG:
        y.without("HSM", due() - HOUR, due() + 2 * DAY, [due(), due() + 2 * HOUR])
        y.without("daemon", due() - 3 * DAY, due() + 4 * DAY)
        y.service.fault(kind="drop", method="POST", path="*/admin_api_keys")
        on_time("its first answer lost")
        y.without("disk", due() - HOUR, due() + DAY, [due(), due() + 2 * HOUR])
        y.without("daemon", y.now + DAY, y.now + 61 * DAY, note="host off for 60 d")
        y.without("answers", due() - HOUR, due() + 2 * DAY, [due(), due() + 2 * HOUR])
        y.at(due() - 10 * DAY)
        y.clock_back(3 * DAY, "clock set back")
        on_time()
        y.clock_back(45 * DAY, "clock set back 45 d")
    while due() < END:
        on_time()
    y.compare(record_property)


def expired(y):
    """Sixty days off are longer than a key lives that is to rotate every week: 37 days. The
    leases are there, the state says what it is, and another key by hand goes on."""
    y.without("daemon", y.now + DAY, y.now + 61 * DAY)
    assert config(y.daemon)["admin_api_key_state"] == "expired"
    with pytest.raises(Error) as e:
        mints(y.daemon)
    assert e.value.name == "ServiceAuth", e.value
    y.by_hand("expired while the host was off for 60 d; by hand")


def test_mondays_at_three(begun, record_property):
    y = begun(MondaysAtThree())
    r = y.reckoning

    def monday(weeks=0):
        return y.plan.after(y.now) + weeks * WEEK

    def on_time(note=None):
        m = monday()
        y.at(m - MINUTE)
        y.at(m + 1, note)

    on_time("on time")
    m = monday()
    y.without("service", m - HOUR, m + HOUR, [m, m + HOUR - MINUTE])
    m = monday()
    y.without("daemon", m - 12 * HOUR, m + 2 * HOUR - MINUTE, note="back a minute before the window's end")
    m = monday()
    y.without("daemon", m - 12 * HOUR, m + 2 * HOUR + MINUTE)  # a minute too late: missed
    on_time("missed a week ago")
    m = monday()
    y.without("HSM", m - HOUR, m + 3 * HOUR, [m + 1, m + 2 * HOUR - MINUTE, m + 2 * HOUR + MINUTE])
    on_time("missed: HSM away")
    m = monday()
    y.without("disk", m - HOUR, m + HOUR, [m + 1])
    on_time()
    y.clock_back(3 * DAY, "clock set back")
    if LONG:
        m = monday()
        y.without("daemon", m - 3 * DAY, m + 4 * DAY)  # a week
        on_time("missed: daemon away 7 d")
        m = monday()
        y.at(m - MINUTE)
        y.without("daemon", m - MINUTE, m + 20 * DAY, note="daemon away 20 d: half of the slack is gone")
        on_time()
        expired(y)
        y.slack(90 * DAY)
        on_time()
        y.without("daemon", y.now + DAY, y.now + 61 * DAY, note="host off for 60 d")
        on_time()
        m = monday()
        y.without("answers", m - HOUR, m + 3 * HOUR, [m + 1, m + HOUR])
    while y.plan.after(y.now) < END:
        on_time()
    y.compare(record_property)
