"""What the daemon's socket takes and refuses, message by message."""

import json
import os
import socket
import time

import pytest

from conftest import SOURCE, only_root_looks, patience, wait_for
from varlink import Connection, Error, pipe_with, request_id


@pytest.fixture
def link(bare):
    bare.start()
    with bare.attached() as c:
        c.daemon = bare
        yield c
    assert bare.process.poll() is None, bare.log()


def refused(link, method, **parameters):
    with pytest.raises(Error) as e:
        link.call(method, **parameters)
    return e.value


def test_service_interface(bare):
    bare.start()
    with bare.connect() as c:  # before Attach
        info = c.call("org.varlink.service.GetInfo")
        assert info["product"] == "hsmintd" and "org.hsmint" in info["interfaces"]
        text = c.call("org.varlink.service.GetInterfaceDescription", interface="org.hsmint")["description"]
        assert text == (SOURCE / "spec/org.hsmint.varlink").read_text()
        assert refused(c, "org.varlink.service.GetInterfaceDescription", interface="org.none").name == "NotFound"


def test_attach_comes_first(bare):
    bare.start()
    with bare.connect() as c:
        e = refused(c, "Status")
        assert e.name == "Protocol" and "before Attach" in e.text
        assert refused(c, "Attach", version=2, program="x").name == "Protocol"
        c.attach()
        assert refused(c, "Attach", version=1, program="x").name == "Exists"


@pytest.mark.parametrize("method", ["org.hsmint.Nothing", "Nothing", "org.hsmint.", "org.varlink.service.None", ""])
def test_unknown_method(link, method):
    link.send({"method": method, "parameters": {}})
    message, _ = link.receive()
    assert message == {"error": "org.varlink.service.MethodNotFound", "parameters": {"method": method}}


@pytest.mark.parametrize(
    "method, parameters, text",
    [
        ("Status", {"colour": 1}, "colour"),
        ("Mint", {"request_id": request_id(), "roel": "x"}, "roel"),
        ("Mint", {}, "request_id"),
        ("Mint", {"request_id": "1"}, "request_id"),
        ("Mint", {"request_id": request_id(), "role": 1}, "role"),
        ("Mint", {"request_id": request_id(), "ttl": "1h"}, "ttl"),
        ("Mint", {"request_id": request_id(), "ttl": 1.5}, "ttl"),
        ("Mint", {"request_id": request_id(), "bound": "yes"}, "bound"),
        ("Mint", {"request_id": request_id(), "bound": True, "session": -1}, "session"),
        ("Mint", {"request_id": request_id(), "id": "xyz"}, "id"),
        ("Mint", {"request_id": request_id(), "id": "00" * 129}, "id"),
        ("SetRole", {"name": "a", "fields": [], "request_id": request_id()}, "fields"),
        ("ListLeases", {"limit": 0}, "limit"),
        ("ListLeases", {"before": "x"}, "before"),
        ("EndSession", {"session": 0}, "session"),
    ],
)
def test_bad_parameters(link, method, parameters, text):
    e = refused(link, method, **parameters)
    assert e.name == "Invalid" and text in e.text


def test_unknown_members_of_a_request(link):
    for extra in ("oneway", "more", "upgrade", "id"):
        link.send({"method": "org.hsmint.Status", extra: True})
        message, _ = link.receive()
        assert message["error"] in ("org.hsmint.Invalid", "org.hsmint.Protocol") and extra in message["parameters"]["text"]
    link.call("Status")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"nonsense",
        b"[]",
        b"1",
        b'{"method": "org.hsmint.Status"',
        b'{"method": "org.hsmint.Status", "method": "org.hsmint.Stop"}',
        b'{"method": "\xff"}',
        b'{"method": "\\u0000"}',
        b"[" * 100_000,
        b"[" * 2040 + b"]" * 2040,
        b'{"method": "org.hsmint.Mint", "parameters": {"fields": ' + b'{"a":' * 2000 + b"1" + b"}" * 2002,
    ],
    ids=["empty", "word", "array", "number", "half", "double", "utf8", "nul", "open", "deep", "deep-fields"],
)
def test_malformed_message(link, text):
    """One error, and then nothing that depends on guessing."""
    link.send_bytes(text + b"\0")
    message, _ = link.receive()
    assert message["error"] in ("org.hsmint.Protocol", "org.hsmint.Invalid"), message
    with link.daemon.attached() as c:
        c.call("Status")


def test_oversized_message(link):
    with pytest.raises((OSError, EOFError, Error)):
        link.send_bytes(b'{"method": "' + b"x" * 2_000_000)
        message, _ = link.receive()
        raise Error(message)
    with link.daemon.attached() as c:
        c.call("Status")


def test_largest_message(link):
    """Just within the bound: read, and refused for what it says."""
    text = json.dumps({"method": "org.hsmint." + "x" * (1024 * 1024 - 40)}).encode()
    link.send_bytes(text + b"\0")
    message, _ = link.receive()
    assert message["error"] == "org.varlink.service.MethodNotFound"


def test_half_a_request(link):
    """It may take ten seconds; the others do not wait for it."""
    link.send_bytes(b'{"method": "org.hsm')
    began = time.monotonic()
    with link.daemon.attached() as c:
        c.call("Status")
        assert time.monotonic() - began < patience(1)
    message, _ = link.receive()
    assert message["error"] == "org.hsmint.Deadline"
    assert 9 < time.monotonic() - began < patience(15)
    with pytest.raises(EOFError):
        link.receive()


def test_requests_in_a_row(link):
    """Sent at once, answered in order."""
    link.send_bytes(b'{"method":"org.hsmint.Slots"}\0{"method":"org.hsmint.Status"}\0{"method":"org.hsmint.Slots"}\0')
    replies = [link.receive()[0]["parameters"] for _ in range(3)]
    assert ["slots" in r for r in replies] == [True, False, True]


def test_byte_by_byte(link):
    for b in b'{"method":"org.hsmint.Slots"}\0':
        link.send_bytes(bytes([b]))
    assert "slots" in link.receive()[0]["parameters"]


def test_descriptor_where_none_belongs(link):
    e = refused(link, "Status", secret=b"x")
    assert e.name == "Invalid" and "descriptor" in e.text
    link.call("Status")


def test_too_many_descriptors(link):
    fds = [pipe_with(b"x") for _ in range(3)]
    with pytest.raises((Error, EOFError, OSError)):
        link.call("Login", fds=fds)
    for fd in fds:
        os.close(fd)
    with link.daemon.attached() as c:
        c.call("Status")


def test_descriptors_do_not_pile_up(link):
    only_root_looks()

    def count():
        return len(os.listdir(f"/proc/{link.daemon.process.pid}/fd"))

    def use(times):
        for _ in range(times):
            refused(link, "Status", secret=b"x")
            with link.daemon.attached():
                pass

    use(2)
    before = count()
    use(50)
    # Room for what the daemon's own threads open when their time comes.
    wait_for(lambda: count() < before + 10, what="descriptors to be closed")


def test_client_that_reads_nothing(link):
    """It fills its own socket; the others are served."""
    with link.daemon.attached() as c:
        c.sock.setblocking(False)
        try:
            while True:
                c.sock.send(b'{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.hsmint"}}\0' * 100)
        except BlockingIOError:
            pass
        link.call("Status")


def test_names_in_the_log_cannot_forge_lines(link):
    evil = "a\r\nhsmintd[1]: forged\x1b[2J"
    refused(link, "Attach", version=1, program=evil)
    with link.daemon.connect() as c:
        c.call("Attach", version=1, program=evil)
        refused(c, "GetRole", name=evil)
    assert "\x1b" not in link.daemon.log() and "\nhsmintd[1]: forged" not in link.daemon.log()


def test_answers_are_kept_for_retries(link):
    """The same request_id gets the same answer; another method with it is refused."""
    link.change("Init")
    again = request_id()
    with pytest.raises(Error):
        link.change("Init", request_id=again)
    kept = request_id()
    first = link.change("Init", org="second", request_id=kept)
    assert link.change("Init", org="second", request_id=kept) == first
    e = pytest.raises(Error, link.change, "DeleteRole", name="x", request_id=kept).value
    assert e.name == "Invalid" and kept in e.text
