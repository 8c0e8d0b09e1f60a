"""hsmint audit witness: others sign that they saw a copy's checkpoint (c2sp.org/tlog-witness)."""

import base64
import http.server
import os
import ssl
import threading

import pytest

import auditlog
from auditcli import a_log, hsmint, verdict
from auditlog import WitnessKey


class Witness:
    """c2sp.org/tlog-witness, by the text of the protocol."""

    def __init__(self, log, leaves=(), tls=None):
        self.log, self.key, self.size, self.asked = log, WitnessKey("witness.example/w1"), len(leaves), []
        self.root = auditlog.root(list(leaves))
        self.answer = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(self.path)
                status, text = outer.answer or outer.add_checkpoint(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}/prefix"
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add_checkpoint(self, body):
        head, _, note = body.partition(b"\n\n")
        old, *proof = head.decode().splitlines()
        assert old.startswith("old ")
        try:
            origin, size, root = auditlog.read_checkpoint(note, [self.log.keys[0].vkey])
        except auditlog.Broken:
            return 403, b""
        if origin != self.log.origin:
            return 404, b""
        if int(old[4:]) != self.size:
            return 409, b"%d\n" % self.size
        expected = auditlog.consistency(self.log.leaves[:size], self.size)
        if [base64.b64decode(x) for x in proof] != expected or root != auditlog.root(self.log.leaves[:size]):
            return 422, b""
        self.size, self.root = size, root
        text = note.decode().rpartition("\n\n")[0] + "\n"
        return 200, auditlog.signature_line(self.key, text).encode()


@pytest.fixture
def witness(request):
    made = []

    def make(*args):
        made.append(Witness(*args))
        return made[-1]

    yield make
    for w in made:
        w.server.shutdown()
        w.server.server_close()


def test_a_witness(tmp_path, witness):
    log = a_log(300)
    log.write_tiles(tmp_path)
    w = witness(log)
    words = ("--url", w.url, "--key", w.key.vkey)
    keys = [k.vkey for k in log.keys] + [w.key.vkey]
    hsmint("audit", "witness", tmp_path, *words)
    assert w.size == 300 and w.asked == ["/prefix/add-checkpoint"]
    assert auditlog.verify(tmp_path, keys)
    assert verdict(tmp_path, "--key", keys[0], "--key", w.key.vkey)["keys_given"]
    while len(log.lines) < 777:
        log.add("policy", name="p")
    log.write_tiles(tmp_path)
    printed = hsmint("audit", "witness", tmp_path, *words)  # it says 409 and where it stands
    assert w.size == 777 and printed == (tmp_path / "checkpoint").read_text()
    hsmint("audit", "witness", tmp_path, *words)  # once more: one line all the same
    assert (tmp_path / "checkpoint").read_text().count("witness.example") == 1
    assert auditlog.verify(tmp_path, keys)


def test_a_witness_by_https(tmp_path, witness):
    log = a_log(40)
    log.write_tiles(tmp_path)
    pem = tmp_path / "pem"
    pem.write_bytes(auditlog.certificate("127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    w = witness(log, (), context)
    words = ("audit", "witness", tmp_path, "--url", w.url, "--key", w.key.vkey)
    assert "certificate" in hsmint(*words, status=5)  # nobody vouches for it
    assert w.asked == []
    hsmint(*words, "--ca-file", pem)
    assert w.asked == ["/prefix/add-checkpoint"]


def test_witnesses_that_refuse(tmp_path, witness):
    log = a_log(40)
    log.write_tiles(tmp_path)
    before = (tmp_path / "checkpoint").read_text()
    w = witness(log)
    words = ("--url", w.url, "--key", w.key.vkey)

    def refused(part, status=1):
        told = hsmint("audit", "witness", tmp_path, *words, status=status)
        assert part in told, told
        assert (tmp_path / "checkpoint").read_text() == before

    w.size = 50
    refused("has seen 50 records")
    w.size = 0
    for answer, part in (
        ((403, b""), "does not know the key"),
        ((404, b""), "does not know this log"),
        ((422, b""), "the proof does not hold"),
        ((500, b""), "status 500"),
        ((302, b""), "status 302"),
        ((409, b"many\n"), "does not say how many"),
        ((409, b"7\n"), "another state each time"),
        ((200, b""), "answer"),
        ((200, os.urandom(100)), "answer"),
        ((200, b"x" * 70000), "more than"),
        ((200, auditlog.signature_line(WitnessKey("witness.example/w1"), "other\n").encode()), "no cosignature"),
        ((200, auditlog.signature_line(w.key, "other\n").encode()), "does not fit"),
        ((200, b"\nother\n1\n\n" + auditlog.signature_line(w.key, "other\n1\n").encode()), "answer"),
    ):
        w.answer = answer
        refused(part, status=5 if answer[0] == 500 else 1)
    hsmint("audit", "witness", tmp_path, "--url", "http://example.org", "--key", w.key.vkey, status=2)
    hsmint("audit", "witness", tmp_path, "--url", "http://127.0.0.1:1@example.org/", "--key", w.key.vkey, status=2)
    hsmint("audit", "witness", tmp_path, "--url", w.url, "--key", log.keys[0].vkey, status=2)
    hsmint("audit", "witness", tmp_path, "--url", w.url, status=2)
    w.server.shutdown()
    w.server.server_close()
    assert "127.0.0.1" in hsmint("audit", "witness", tmp_path, *words, status=5)
