"""Each bad input has its own clear answer, and leaves no account behind that
the store does not know."""

import os
import shutil
import subprocess
import time

import pytest

from conftest import PROJECT, Daemon, Service, Token, wait_for
from varlink import Error, request_id


def refused(c, method, secret=None, **parameters):
    with pytest.raises(Error) as e:
        c.change(method, secret=secret, **parameters)
    assert e.value.text, e.value
    return e.value


# ---- names and numbers ----

NAMES = {
    "crlf": "a\r\nX-Evil: 1",
    "quote": 'a"b',
    "slash": "../../a",
    "space": "a b",
    "long": "x" * 65536,
    "empty": "",
    "dots": "..",
    "escape": "\x1b[31mred",
    "rtl": "\u202eabc",
    "reserved": "admin-key",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_names(ready, service, name):
    with ready.attached() as c:
        before = service.control("counters")["requests"]
        e = refused(c, "SetRole", name=name, fields={"project_id": PROJECT})
        assert e.name == "Invalid", e
        for method in ("GetRole",):
            assert pytest.raises(Error, c.call, method, name=name).value.name in ("Invalid", "RoleUnknown")
        if name:  # an empty one asks for the default role
            assert refused(c, "Mint", role=name).name in ("Invalid", "RoleUnknown")
        if name:
            assert refused(c, "Init", org=name).name == "Invalid"
        assert not any(ch in e.text for ch in "\r\n\x1b\u202e")
        assert len(e.text) < 1024
        # Nothing of this reached the service.
        assert service.control("counters")["requests"] == before
    assert service.alive() == 0


@pytest.mark.parametrize("text", [b'"a\\u0000b"', b'"a\xff"', b'"\\ud800"'], ids=["nul", "utf8", "surrogate"])
def test_names_that_are_no_text(ready, text):
    with ready.attached() as c:
        c.send_bytes(b'{"method":"org.hsmint.Mint","parameters":{"request_id":"' + request_id().encode() + b'","role":' + text + b"}}\0")
        message, _ = c.receive()
        assert message["error"] in ("org.hsmint.Protocol", "org.hsmint.Invalid")


@pytest.mark.parametrize("label", ["a\r\nb", "x" * 65536, "\x1b[2J", "\u202e"], ids=["crlf", "long", "escape", "rtl"])
def test_labels(ready, service, label):
    """Cosmetic, but they meet terminals."""
    with ready.attached() as c:
        try:
            lease = c.change("Mint", role="my-app", label=label)["lease"]
        except Error as e:
            assert e.name == "Invalid"
            assert service.alive() == 0
        else:
            assert not any(ch in lease["service_account"] for ch in "\r\n\x1b\u202e")


@pytest.mark.parametrize("ttl, name", [(86401, "Ttl"), (0, "Ttl"), (-1, "Ttl"), (2**62, "Ttl")])
def test_ttl(ready, service, ttl, name):
    with ready.attached() as c:
        e = refused(c, "Mint", role="my-app", ttl=ttl)
        assert e.name == name
        lease = c.change("Mint", role="my-app")["lease"]
        assert refused(c, "Renew", lease_id=lease["lease_id"], ttl=ttl).name == name
    assert service.alive() == 1


FIELDS = [
    ({"ttl": 100, "max_ttl": 10}, "Ttl", "max_ttl"),
    ({"ttl": "soon"}, None, "ttl"),
    ({"colour": "blue"}, "Invalid", "colour"),
    ({"service_account_name_template": "{{.Nonsense}}"}, "Invalid", "Nonsense"),
    ({"service_account_name_template": "{{"}, "Invalid", "template"),
    ({"project_id": "a/b"}, "Invalid", "project_id"),
    ({"project_id": "proj_none"}, "Project", "proj_none"),
    ({"project_id": "proj_old"}, "Project", "proj_old"),
    ({"project_id": ""}, "Invalid", "project_id"),
]


@pytest.mark.parametrize("fields, name, text", FIELDS, ids=[str(f[0])[:40] for f in FIELDS])
def test_role_fields(ready, fields, name, text):
    with ready.attached() as c:
        e = refused(c, "SetRole", name="bad", fields={"project_id": PROJECT, **fields})
        assert (name is None or e.name == name) and text in e.text, e
        assert pytest.raises(Error, c.call, "GetRole", name="bad").value.name == "RoleUnknown"


def test_unknown_things(ready):
    with ready.attached() as c:
        assert refused(c, "Mint", role="nobody").name == "RoleUnknown"
        assert refused(c, "Mint", org="none", role="my-app").name == "NotFound"
        for method in ("Renew", "Revoke"):
            assert refused(c, method, lease_id="0" * 26).name == "NotFound"
            assert refused(c, method, lease_id="nonsense").name in ("NotFound", "Invalid")
        assert refused(c, "DeleteRole", name="nobody").name == "RoleUnknown"
        assert refused(c, "Init").name == "Exists"


# ---- configuration ----

ENDPOINTS = [
    "ftp://api.openai.com/v1",
    "https://",
    "https://user:word@api.openai.com/v1",
    "https://api.openai.com/v1?x=1",
    "https://api.openai.com/v1#x",
    "https://api.openai.com\r\nHost: evil/v1",
    "http://api.openai.com/v1",
    "nonsense",
    "",
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoints(ready, service, endpoint):
    with ready.attached() as c:
        before = c.call("GetConfig")
        e = refused(c, "SetConfig", secret=service.admin_key.encode(), fields={"api_endpoint": endpoint})
        assert e.name in ("Invalid", "Config"), e
        assert c.call("GetConfig") == before
    # Mints go on with the old one.
    with ready.attached() as c:
        c.change("Mint", role="my-app")


def test_no_admin_key_yet(daemon):
    with daemon.attached() as c:
        c.change("Init")
        e = refused(c, "SetRole", name="r", fields={"project_id": PROJECT})
        assert e.name == "NoAdminKey", e
        assert refused(c, "Mint", role="r").name in ("NoAdminKey", "RoleUnknown")


def test_wrong_admin_key(daemon, service):
    with daemon.attached() as c:
        c.change("Init")
        e = refused(c, "SetConfig", secret=b"sk-admin-nonsense", fields={"api_endpoint": service.url, "organization_id": "o"})
        assert e.name in ("ServiceAuth", "NotFound", "Invalid"), e
        assert "nonsense" not in e.text
        assert refused(c, "Mint", role="r").name in ("NoAdminKey", "RoleUnknown")


@pytest.mark.parametrize("key", [b"", b"a b", b"sk-admin-\r\nHost: evil", b"x" * 20000, b"sk\0admin"], ids=["empty", "space", "crlf", "long", "nul"])
def test_keys_that_are_none(daemon, service, key):
    with daemon.attached() as c:
        c.change("Init")
        before = service.control("counters")["requests"]
        e = refused(c, "SetConfig", secret=key, fields={"api_endpoint": service.url, "organization_id": "o"})
        assert e.name == "Invalid", e
        assert service.control("counters")["requests"] == before


# ---- what the service may answer ----

CREATE = {"method": "POST", "path": "*/service_accounts"}
ANSWERS = {
    "401": ({"kind": "status", "status": 401}, "ServiceAuth"),
    "403 bare string": (
        {"kind": "status", "status": 403, "body": {"error": "You have insufficient permissions. Missing scopes: x"}},
        "ServiceForbidden",
    ),
    "404 project": (
        {"kind": "status", "status": 404, "body": {"error": {"message": "no such project", "code": "project_not_found"}}},
        "Project",
    ),
    "400": ({"kind": "status", "status": 400}, "ServiceRefused"),
    "429": ({"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}, "ServiceRate"),
    "500 before": ({"kind": "status", "status": 500}, "ServiceFailed"),
    "500 after": ({"kind": "status", "status": 500, "when": "after"}, "ServiceFailed"),
    "lost before": ({"kind": "drop", "when": "before"}, "ServiceUnknown"),
    "lost after": ({"kind": "drop", "when": "after"}, "ServiceUnknown"),
    "truncated": ({"kind": "truncate"}, ("ServiceUnknown", "ServiceReply")),
    "oversized": ({"kind": "oversize"}, ("ServiceUnknown", "ServiceReply")),
    "not json": ({"kind": "not_json", "when": "after"}, "ServiceReply"),
    "deep": ({"kind": "deep", "when": "after"}, "ServiceReply"),
    "no id": ({"kind": "omit", "fields": ["id"]}, "ServiceReply"),
    "no key": ({"kind": "omit", "fields": ["api_key"]}, "ServiceReply"),
    "no value": ({"kind": "omit", "fields": ["api_key.value"]}, "ServiceReply"),
    "empty id": ({"kind": "set", "fields": {"id": ""}}, "ServiceReply"),
    "redirect": ({"kind": "redirect", "location": "https://127.0.0.1:1/"}, "ServiceRefused"),
}


@pytest.mark.parametrize("fault, name", ANSWERS.values(), ids=ANSWERS.keys())
def test_answers_of_the_service(ready, service, fault, name):
    service.fault(**CREATE, **fault)
    with ready.attached() as c:
        e = refused(c, "Mint", role="my-app")
        assert e.name in (name if isinstance(name, tuple) else (name,)), e
        if fault.get("status") == 429:
            assert e.parameters["retry_after_ms"] == 7000
        wait_for(lambda: service.alive() == 0, 20, "the account to be found and revoked")
        # The next one works.
        lease = c.change("Mint", role="my-app")["lease"]
        assert [a["id"] for a in service.accounts()] == [lease["service_account_id"]]


def test_request_id_of_the_service_is_told(ready, service):
    service.fault(**CREATE, kind="status", status=500)
    with ready.attached() as c:
        assert refused(c, "Mint", role="my-app").parameters["service_request_id"]


def test_service_is_down(ready, service):
    with ready.attached() as c:
        lease = c.change("Mint", role="my-app")["lease"]
        service.stop()
        assert refused(c, "Mint", role="my-app").name == "ServiceDown"
        assert refused(c, "Revoke", lease_id=lease["lease_id"]).name == "ServiceDown"
        assert c.call("GetLease", lease_id=lease["lease_id"])["lease"]["state"] == "revoking"


# ---- the HSM ----


def test_missing_hsm(bare):
    bare.settings["hsm"]["module"] = "/nonexistent/libhsm.so"
    bare.start()
    with bare.attached() as c:
        e = refused(c, "Init")
        assert e.name == "HsmAbsent" and "/nonexistent/libhsm.so" in e.text, e
        assert c.call("Slots") and c.call("Status")


def test_missing_token(bare):
    bare.settings["hsm"]["uri"] = "pkcs11:token=other"
    bare.start()
    with bare.attached() as c:
        e = refused(c, "Init")
        assert e.name == "HsmAbsent" and "other" in e.text, e


def test_wrong_pin_in_the_file(bare):
    bare.pin_file.write_text("000000")
    bare.start()
    with bare.attached() as c:
        assert refused(c, "Init").name in ("Locked", "PinWrong", "PinHeld")


def test_pin_file_that_others_read(bare):
    bare.pin_file.chmod(0o644)
    bare.start()
    with bare.attached() as c:
        e = refused(c, "Init")
        assert e.name in ("Locked", "Config", "Denied", "Invalid"), e


def test_another_hsm(ready, place):
    """The state knows its keys: an HSM without them is refused, not provisioned."""
    ready.stop()
    other = Token(place, "other")
    ready.settings["hsm"]["uri"] = "pkcs11:token=other"
    ready.settings["hsm.env"] = dict(other.environment)
    ready.start()
    with ready.attached() as c:
        for method, parameters in (("Mint", {"role": "my-app"}), ("Init", {"org": "new"})):
            e = refused(c, method, **parameters)
            assert e.name == "HsmKeys", e


def test_state_without_its_keys(ready):
    """Planted keys: a second set under our labels."""
    ready.stop()
    environment = {**os.environ, **ready.token.environment}
    subprocess.run(
        ["pkcs11-tool", "--module", ready.token.module, "--token-label", ready.token.label, "--login", "--pin", ready.token.pin]
        + ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "hsmint-call-1", "--id", "31"],
        env=environment,
        check=True,
        capture_output=True,
    )
    ready.start()
    with ready.attached() as c:
        e = refused(c, "Mint", role="my-app")
        assert e.name == "HsmKeys" and "hsmint-call-1" in e.text, e


# ---- the disk ----


def test_below_the_reserve(ready, service):
    """Mints are refused; what lives can be revoked."""
    with ready.attached() as c:
        lease = c.change("Mint", role="my-app")["lease"]
    ready.stop()
    ready.settings["daemon"]["disk_reserve"] = "1000G"
    ready.start()
    with ready.attached() as c:
        assert refused(c, "Mint", role="my-app").name == "DiskFull"
        assert "disk" in [w["id"] for w in c.call("Status")["status"]["alarms"]]
        assert service.alive() == 1
        c.change("Revoke", lease_id=lease["lease_id"])
    assert service.alive() == 0
