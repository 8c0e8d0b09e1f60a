"""Renewal against a service that refuses, loses or doubles it: what lease and key end
at, always together, and never past max_ttl. One daemon for all."""

import time

import pytest

from conftest import wait_for
from test_lease import mint
from varlink import Error, request_id

MAX_TTL = 86400
SLACK = 330  # how much later than its lease a key may end: LEASE_SLACK_S and rounding
RENEWAL = {"method": "POST", "path": "*/api_keys/*"}


class Lease:
    """One lease, as the daemon has it, and its key as the service has it."""

    def __init__(self, c, service, **parameters):
        self.c, self.service = c, service
        self.lease, self.key = mint(c, **parameters)
        self.id = self.lease["lease_id"]

    def renew(self, ttl=0, **parameters):
        if ttl:
            parameters["ttl"] = ttl
        return self.c.change("Renew", lease_id=self.id, **parameters)["lease"]

    def refused(self, name, ttl=0, **parameters):
        with pytest.raises(Error) as e:
            self.renew(ttl, **parameters)
        assert e.value.name == name, e.value
        return e.value.text

    def left(self):
        """Seconds of the lease."""
        lease = self.c.call("GetLease", lease_id=self.id)["lease"]
        assert lease["state"] == "active"
        return (lease["expires_ms"] - time.time() * 1000) / 1000

    def key_left(self):
        """Seconds of its key, by the service's clock."""
        k = self.service.control(f"keys/{self.lease['api_key_id']}")
        offset = self.service.control("settings")["clock_offset_s"]
        return k["expires_at"] - time.time() - offset

    def lives(self, seconds):
        assert seconds - 5 < self.left() <= seconds + 1
        assert self.left() - 2 < self.key_left() < self.left() + SLACK
        assert self.service.accepts(self.key)


def test_renewal(ready, service):
    with ready.attached() as c:
        one = Lease(c, service)
        one.lives(3600)
        # Both move, further and back.
        one.renew(7200)
        one.lives(7200)
        one.renew(1800)
        one.lives(1800)
        # Refused, before and after: nothing moves.
        refusals = {400: "ServiceRefused", 404: "NotFound", 429: "ServiceRate", 500: "ServiceFailed"}
        for status, name in refusals.items():
            service.fault(kind="status", status=status, **RENEWAL)
            one.refused(name, 7200)
            one.lives(1800)
        # Lost: the lease stays; the key outlives it by what was asked, as the spec says.
        again = request_id()
        service.fault(kind="drop", **RENEWAL)
        one.refused("ServiceUnknown", 7200, request_id=again)
        assert 1790 < one.left() <= 1800 and 7190 < one.key_left() < 7200 + SLACK
        # The retry moves it; one more retry moves nothing.
        one.renew(7200, request_id=again)
        one.lives(7200)
        calls = service.control("counters")["requests"]
        one.renew(7200, request_id=again)
        assert service.control("counters")["requests"] == calls
        # Doubled on its way, answered by the first or by the last.
        for reply in ("first", "last"):
            service.fault(kind="twice", reply=reply, **RENEWAL)
            one.renew(5000)
            one.lives(5000)
        # Answered with the key's old expiry: an error, and nothing moves.
        old = service.control(f"keys/{one.lease['api_key_id']}")["expires_at"]
        service.fault(kind="set", fields={"expires_at": old}, **RENEWAL)
        assert "old expiry" in one.refused("ServiceRefused", 9000)
        assert 4990 < one.left() <= 5000
        # Ended sooner than was asked: so does the lease. The service tells whole seconds.
        service.fault(kind="set", fields={"expires_at": int(time.time()) + 600}, **RENEWAL)
        assert one.renew(9000)["lease_duration"] <= 601 and 590 < one.left() <= 601
        # Never past max_ttl from issue, whatever is asked, however often.
        for _ in range(3):
            assert "max_ttl" in one.refused("Ttl", MAX_TTL + 1)
            one.renew(MAX_TTL - 30)
            lease = c.call("GetLease", lease_id=one.id)["lease"]
            assert lease["expires_ms"] <= lease["issued_ms"] + MAX_TTL * 1000
            assert one.key_left() < MAX_TTL + SLACK


@pytest.mark.parametrize("offset", [-7200, 7200])
def test_clocks_that_differ(ready, service, offset):
    """The service's clock is not ours: its own times are compared with its own."""
    service.control("settings", {"clock_offset_s": offset})
    with ready.attached() as c:
        one = Lease(c, service)
        one.lives(3600)
        one.renew(5400)
        one.lives(5400)
        old = service.control(f"keys/{one.lease['api_key_id']}")["expires_at"]
        service.fault(kind="set", fields={"expires_at": old}, **RENEWAL)
        assert "old expiry" in one.refused("ServiceRefused", 9000)


def test_a_short_life(ready, service):
    """Renewed until max_ttl, then over: the key dies with its lease."""
    with ready.attached() as c:
        c.change("SetRole", name="brief", fields={"project_id": "proj_abc", "ttl": 2, "max_ttl": 4})
        one = Lease(c, service, role="brief")
        time.sleep(1.2)
        lease = one.renew()
        assert lease["expires_ms"] <= lease["issued_ms"] + 4000
        time.sleep(1.2)
        assert service.accepts(one.key)
        lease = one.renew()
        assert lease["expires_ms"] <= lease["issued_ms"] + 4000
        wait_for(lambda: not service.accepts(one.key), 4, "the key to die")
        assert -0.1 < time.time() - lease["expires_ms"] / 1000 < 2
