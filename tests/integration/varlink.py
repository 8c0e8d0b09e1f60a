"""A raw client of spec/org.hsmint.varlink, on purpose without the project's code.

    with Connection(path) as c:
        c.attach()
        reply = c.call("Mint", role="my-app", request_id=request_id())
        reply["lease"]["lease_id"], reply.secret
"""

import array
import json
import os
import secrets
import socket
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def request_id():
    """A ULID, lower case, as each call that changes something carries."""
    n = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(ALPHABET[n >> 5 * i & 31] for i in reversed(range(26)))


class Error(Exception):
    """An error reply: name without "org.hsmint.", text, parameters."""

    def __init__(self, reply):
        self.full_name = reply["error"]
        self.name = self.full_name.removeprefix("org.hsmint.")
        self.parameters = reply.get("parameters", {})
        self.text = self.parameters.get("text", "")
        super().__init__(f"{self.name}: {self.text}")


class Reply(dict):
    secret = None  # bytes that came along as a pipe


def pipe_with(data):
    """The read end of a pipe that holds data."""
    r, w = os.pipe()
    os.write(w, data)
    os.close(w)
    return r


class Connection:
    def __init__(self, path, timeout=60):
        self.path = str(path)
        self.token = None
        self.buffer = b""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)  # waits where the queue is full
        self.sock.settimeout(timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send_bytes(self, data, fds=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.sock.sendmsg([data], rights)
        if data[sent:]:
            self.sock.sendall(data[sent:])

    def send(self, message, fds=()):
        self.send_bytes(json.dumps(message).encode() + b"\0", fds)

    def receive(self):
        """(message, descriptors); EOFError when the daemon has hung up."""
        fds = []
        while b"\0" not in self.buffer:
            data, more, _, _ = socket.recv_fds(self.sock, 65536, 4)
            fds += more
            if not data:
                raise EOFError("the daemon closed the connection")
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text), fds

    def call(self, method, secret=None, fds=(), **parameters):
        """secret: bytes that go along as a pipe. Raises Error."""
        if "." not in method:
            method = "org.hsmint." + method
        own = [pipe_with(secret)] if secret is not None else []
        try:
            self.send({"method": method, "parameters": parameters}, [*own, *fds])
        finally:
            for fd in own:
                os.close(fd)
        message, fds = self.receive()
        reply = Reply(message.get("parameters") or {})
        for fd in fds:
            with os.fdopen(fd, "rb") as f:
                reply.secret = f.read()
        if "error" in message:
            raise Error(message)
        return reply

    def change(self, method, secret=None, **parameters):
        """A call that changes something, with a request_id of its own."""
        parameters.setdefault("request_id", request_id())
        return self.call(method, secret=secret, **parameters)

    def attach(self, program="pytest", token=None):
        parameters = {"version": 1, "program": program}
        if token:
            parameters["token"] = token
        reply = self.call("Attach", **parameters)
        self.token = reply["token"]
        return reply
