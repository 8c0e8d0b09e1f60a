"""A rotation on command amid the service's faults, and killed: what test_rotate.py
sees, again and again."""

import time

import pytest

from test_rotate import KEYS, ONE_KEY, alive, daemon, key_id, mints, rotate, settled, under_way  # noqa: F401 (fixture)
from varlink import Error, request_id

FAULTS = {
    "create refused": ({"kind": "status", "status": 400, "method": "POST", "path": KEYS}, "ServiceRefused"),
    "create forbidden": ({"kind": "status", "status": 403, "method": "POST", "path": KEYS}, "ServiceForbidden"),
    "create 500 before": ({"kind": "status", "status": 500, "method": "POST", "path": KEYS}, "ServiceFailed"),
    "create 500 after": ({"kind": "status", "status": 500, "when": "after", "method": "POST", "path": KEYS}, "ServiceFailed"),
    "create lost": ({"kind": "drop", "method": "POST", "path": KEYS}, "ServiceUnknown"),
    "create never arrived": ({"kind": "drop", "when": "before", "method": "POST", "path": KEYS}, "ServiceUnknown"),
    "create cut": ({"kind": "truncate", "method": "POST", "path": KEYS}, "ServiceUnknown"),
    "create without value": ({"kind": "omit", "fields": ["value"], "method": "POST", "path": KEYS}, "ServiceUnknown"),
    "create without id": ({"kind": "omit", "fields": ["id"], "method": "POST", "path": KEYS}, "ServiceUnknown"),
    "new key 401 for a moment": ({"kind": "status", "status": 401, "method": "GET", "path": KEYS, "times": 2}, None),
    "new key 500 for a moment": ({"kind": "status", "status": 500, "method": "GET", "path": KEYS, "times": 2}, None),
    "delete 500": ({"kind": "status", "status": 500, "method": "DELETE", "path": ONE_KEY, "times": 2}, None),
    "delete 429": ({"kind": "status", "status": 429, "method": "DELETE", "path": ONE_KEY}, None),
    "delete lost": ({"kind": "drop", "method": "DELETE", "path": ONE_KEY}, None),
}


NEVER_MADE = ("create 500 before", "create never arrived")


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name, ready, service):
    fault, error = FAULTS[name]
    old = key_id(ready)
    service.fault(**fault)
    if error:
        with pytest.raises(Error) as e:
            rotate(ready)
        assert e.value.name == error
        assert key_id(ready) == old
    else:
        assert rotate(ready)["retiring"] == old
    mints(ready)
    if name in NEVER_MADE:  # looked for until it is sure that none will appear
        assert under_way(ready)["state"] == "make" and alive(service) == [old]
    else:
        settled(ready, service)


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.3, 1, 3])
def test_killed_in_the_middle(delay, ready, service):
    """SIGKILL of the daemon so long after the command."""
    service.control("settings", {"latency_ms": 60})
    with ready.attached(timeout=60) as c:
        c.send({"method": "org.hsmint.RotateConfig", "parameters": {"request_id": request_id()}})
        time.sleep(delay)
        ready.kill()
    ready.start()
    settled(ready, service)
