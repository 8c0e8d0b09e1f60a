"""An egress gateway that asks contrib/egress about each request, between the daemon and
the double: signed calls pass, once, and nothing else does."""

import http.client
import socket
import ssl
import subprocess
import threading

import pytest

from conftest import PROJECT, program
from test_lease import mint
from varlink import Error


class Gateway(threading.Thread):
    """Ends TLS with the double's certificate, one request a connection."""

    def __init__(self, place, service):
        super().__init__(daemon=True)
        self.service, self.upstream = service, service.url
        self.seen = place / "seen"
        self.seen.mkdir(mode=0o700)
        self.keys, self.verdicts, self.requests = [], [], []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(service.directory / "server.pem", service.directory / "server.key")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.url = f"https://{self.host}/v1"
        self.start()

    def check(self, raw):
        """What a gateway does."""
        keys = [word for key in self.keys for word in ("--key", key)]
        r = subprocess.run(
            [program("hsmint-egress"), *keys, "--host", self.host, "--seen", self.seen],
            input=raw,
            capture_output=True,
            timeout=120,
        )
        verdict = r.stdout.decode().strip()
        assert verdict.startswith({0: "allow ", 1: "deny "}.get(r.returncode, "?")), (r.returncode, verdict, r.stderr)
        return verdict

    def forward(self, raw):
        head, body = raw.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        headers.pop("Host")
        host = self.upstream.split("/")[2]
        c = http.client.HTTPSConnection(host, context=self.service.context, timeout=120)
        c.request(method, path, body, headers)
        r = c.getresponse()
        return r.status, r.read(), r.getheader("x-request-id") or ""

    def serve(self, s):
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += s.recv(65536) or exit()
        head, body = raw.split(b"\r\n\r\n", 1)
        length = next((int(v) for k, _, v in (x.partition(b":") for x in head.split(b"\r\n")) if k.lower() == b"content-length"), 0)
        while len(body) < length:
            more = s.recv(65536)
            body, raw = body + more, raw + more
        verdict = self.check(raw)
        self.requests.append(raw)
        self.verdicts.append(verdict)
        refusal = b'{"error": {"message": "the gateway refuses it", "code": "egress"}}'
        status, reply, rid = self.forward(raw) if verdict.startswith("allow ") else (403, refusal, "")
        answer = f"HTTP/1.1 {status} X\r\nConnection: close\r\nx-request-id: {rid}\r\nContent-Length: {len(reply)}\r\n\r\n"
        s.sendall(answer.encode() + reply)

    def run(self):
        while True:
            try:
                s = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.one, args=(s,), daemon=True).start()

    def one(self, s):
        try:
            with self.context.wrap_socket(s, server_side=True) as tls:
                self.serve(tls)
        except (OSError, SystemExit):
            pass

    def ask(self, raw):
        """As the keeper would: the status."""
        host, port = self.host.split(":")
        with socket.create_connection((host, int(port))) as plain:
            with self.service.context.wrap_socket(plain, server_hostname=host) as s:
                s.sendall(raw)
                return int(s.recv(4096).split(b" ")[1])


@pytest.fixture
def gateway(place, service):
    g = Gateway(place, service)
    yield g
    g.listener.close()


def learn(gateway, connection, place):
    """The key that signs calls, as an operator finds it."""
    for key in connection.call("Status")["status"]["hsm"]["keys"]:
        if key["use"] == "call":
            path = place / "call-key"
            path.write_text(key["public_key"] + "\n")
            gateway.keys = [f"{key['label']}:{key['fingerprint'][:16]}={path}"]


def test_signed_calls_pass_and_nothing_else(daemon_stopped, gateway, service, place):
    daemon_stopped.settings["service"]["send_signature"] = "yes"
    daemon_stopped.start()
    with daemon_stopped.attached() as c:
        c.change("Init")
        learn(gateway, c, place)
        c.change(
            "SetConfig",
            secret=service.admin_key.encode(),
            fields={"api_endpoint": gateway.url, "organization_id": "org-adminsim"},
        )
        c.change("SetRole", name="my-app", fields={"project_id": PROJECT, "ttl": 3600, "max_ttl": 86400})
        lease, _ = mint(c)
        assert service.alive() == 1
        c.change("Revoke", lease_id=lease["lease_id"])
        assert service.alive() == 0
    assert gateway.verdicts and all(v.startswith("allow hsmint-call-1:") for v in gateway.verdicts), gateway.verdicts
    methods = {v.split(" ")[3] for v in gateway.verdicts}
    assert methods == {"GET", "POST", "DELETE"}

    # What left once does not leave again; a stolen key is not enough; nor a change.
    served = service.control("history")["total"]
    post = next(r for r in gateway.requests if r.startswith(b"POST ") and b"service_accounts " in r)
    assert gateway.ask(post) == 403 and gateway.verdicts[-1] == "deny the nonce was used before"
    stolen = f"GET /v1/organization/projects HTTP/1.1\r\nHost: {gateway.host}\r\nAuthorization: Bearer {service.admin_key}\r\n\r\n"
    assert gateway.ask(stolen.encode()) == 403 and gateway.verdicts[-1] == "deny no content-digest"
    assert gateway.ask(post.replace(b'"name"', b'"nome"')) == 403
    assert service.control("history")["total"] == served

    # One that signs and does not say so gets nothing out.
    daemon_stopped.stop()
    daemon_stopped.settings["service"]["send_signature"] = "no"
    daemon_stopped.start()
    with daemon_stopped.attached() as c:
        assert pytest.raises(Error, mint, c).value.name == "ServiceForbidden"
    assert service.control("history")["total"] == served
