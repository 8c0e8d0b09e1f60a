"""Another user of the daemon: a forked child under a uid of its own.

    with Somebody(uid, function, arguments) as s:
        s.wait("ready")        # what function() says by say("ready")
        …                      # function() may ask stopped() whether it is to end
        s.result()             # what it returned (JSON); AssertionError if it raised
"""

import json
import os
import select
import signal
import time

import pytest


class Child:
    """In the child: say() to the parent, stopped() by it."""

    def __init__(self, orders, out):
        self.orders, self.out = orders, out

    def say(self, word):
        os.write(self.out, json.dumps({"word": word}).encode() + b"\n")

    def stopped(self, seconds=0):
        return bool(select.select([self.orders], [], [], seconds)[0])


class Somebody:
    def __init__(self, uid, function, *arguments):
        if os.geteuid() != 0:
            pytest.skip("only root can be somebody else")
        orders, self.orders = os.pipe()
        self.reading, out = os.pipe()
        self.buffer = b""
        self.lines = []
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.orders)
            os.close(self.reading)
            self.run(uid, Child(orders, out), function, arguments)
        os.close(orders)
        os.close(out)

    @staticmethod
    def run(uid, child, function, arguments):
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer = {"result": function(child, *arguments)}
        except BaseException as e:  # it must never return into pytest
            answer = {"error": f"{type(e).__name__}: {e}"}
        try:
            os.write(child.out, json.dumps(answer).encode() + b"\n")
        finally:
            os._exit(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        try:
            end = time.monotonic() + 10
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.01)
        except ChildProcessError:
            pass
        os.close(self.reading)

    def next(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.reading], [], [], left)[0], "somebody says nothing"
            data = os.read(self.reading, 65536)
            assert data, "somebody has ended without a word"
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def wait(self, word, seconds=60):
        line = self.next(seconds)
        assert line == {"word": word}, line

    def stop(self):
        """Tells it to end; says nothing to one that was told. By a byte: later
        children have copies of the pipe's end."""
        if self.orders is not None:
            try:
                os.write(self.orders, b"x")
            except BrokenPipeError:
                pass  # it has
            os.close(self.orders)
            self.orders = None

    def result(self, seconds=120):
        while "word" in (line := self.next(seconds)):
            pass
        assert "error" not in line, line["error"]
        return line["result"]
