"""File systems of a test's own, in a mount namespace of its own."""

import ctypes
import os
from pathlib import Path

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, MNT_DETACH = 0x20000, 2
SMALL = 1 << 30


def mount(target, kind, flags=0, options=""):
    return LIBC.mount(b"none", os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()) == 0


def bind(directory):
    """A mount of itself, whose flags are its own."""
    here = os.fsencode(directory)
    return LIBC.mount(here, here, None, ctypes.c_ulong(MS_BIND), None) == 0


def unmount(target):
    LIBC.umount2(os.fsencode(target), MNT_DETACH)


def own_mounts():
    """From here on no mount of this process is seen by others; skips the test where that cannot be."""
    if LIBC.unshare(CLONE_NEWNS):
        pytest.skip("no mount namespace")
    # The root of a chroot is no mount that could be made private; it may be so already.
    if not mount("/", "none", MS_REC | MS_PRIVATE) and " shared:" in Path("/proc/self/mountinfo").read_text():
        pytest.skip("no mount namespace")


def fill(path):
    """Not a byte is left: of a small file system, never of the machine's own."""
    there = os.statvfs(os.path.dirname(path))
    assert there.f_blocks * there.f_frsize < SMALL, path
    with open(path, "wb") as f:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(f.fileno(), b"\0" * size)
            except OSError:
                pass
