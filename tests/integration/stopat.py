"""Daemon and keeper with tests/integration/stopat.c in them: stop one of them at a
named step of a call, or let one write, fsync or allocation fail."""

import contextlib
import mmap
import os
import signal
import struct
import threading

from conftest import Daemon, program, wait_for

STEPS = (
    "- sign signed intent-write intent-sync intent execute executed outcome-write outcome-sync outcome answer"
    " keeper-sign keeper-signed keeper-execute keeper-executed"
    " ask keeper-asked keeper-done answered"
).split()
DIES = -1
FIELDS = "step method skip stopped go fail nth seen error failed verb".split()


class StoppedAt(Daemon):
    """The page that the library shares with us: at() and failing()."""

    def __init__(self, place, token, service=None):
        super().__init__(place, token, service)
        self.library = program("tests", "integration", ".libs", "stopat.so")
        self.page_file = place / "stopat"
        self.page_file.write_bytes(bytes(4096))
        self.page_file.chmod(0o600)
        with open(self.page_file, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), 4096)
        # The daemon gives its keeper an environment of its own: this goes in between.
        self.wrapper = place / "keeper"
        self.wrapper.write_text(
            "#!/bin/sh\n"
            f"LD_PRELOAD={self.library} STOPAT={self.page_file} exec {program('hsmint-keeper')} \"$@\"\n"
        )
        self.wrapper.chmod(0o700)

    def command(self, *options):
        return [program("hsmintd"), "--config", self.config, "--keeper", self.wrapper, *options]

    def spawn(self, *options, env=None, **popen):
        own = {"LD_PRELOAD": str(self.library), "STOPAT": str(self.page_file), "HSMINTD_ENVIRONMENT": "own"}
        return super().spawn(*options, env={**(env or {}), **own}, **popen)

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into("=i", self.page, 4 * FIELDS.index(name), value)

    def get(self, name):
        return struct.unpack_from("=i", self.page, 4 * FIELDS.index(name))[0]

    def stop_at(self, step, method=None, skip=0):
        """The next thread that comes to `step` of a call of `method` stays there."""
        self.set(step=0)
        self.set(stopped=0, go=0, skip=skip, method=ord(method[0]) if method else 0)
        self.set(step=STEPS.index(step))

    def stop_at_verb(self, step, verb, skip=0):
        """The same of the frames of a verb, by its number in common/frame.h."""
        self.set(step=0)
        self.set(stopped=0, go=0, skip=skip, method=0, verb=verb)
        self.set(step=STEPS.index(step))

    def stopped(self):
        return self.get("stopped")

    def go_on(self):
        self.set(step=0)
        self.set(go=1)

    def killed_at_verb(self, who, step, verb, skip, command, *args):
        """`command` runs beside; the daemon or the keeper (`who`) is killed where it stops, and
        started again."""
        self.stop_at_verb(step, verb, skip)
        t = threading.Thread(target=command, args=args)
        t.start()
        wait_for(self.stopped, 30, f"verb {verb}, {step} {skip}")
        if who == "daemon":
            self.kill()
        else:
            os.kill(self.keeper(), signal.SIGKILL)
        self.go_on()
        t.join()
        if who == "daemon":
            self.start()

    def fail(self, what, nth, error):
        """The nth of `what` ("write", "sync", "malloc") from now on fails; DIES: the
        process ends there."""
        self.set(fail=0)
        self.set(seen=0, failed=0, nth=nth, error=error)
        self.set(fail=ord(what[0]))

    def end(self):
        self.go_on()
        self.set(fail=0)
        super().end()
