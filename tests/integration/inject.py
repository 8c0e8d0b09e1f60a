"""A system call made in another process: it is stopped (ptrace), executes the
`syscall` instruction that it waits in with other registers, and goes on. For
root, on x86-64."""

import ctypes
import errno
import os
import platform
import signal

import pytest

PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_ATTACH, PTRACE_DETACH = 9, 12, 13, 16, 17
REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss"
    " fs_base gs_base ds es fs gs"
).split()


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in REGISTERS]


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, data=None):
    if libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Inside:
    """with Inside(pid) as call: call(number, arguments…) is the errno, 0 for none."""

    def __init__(self, pid):
        if platform.machine() != "x86_64":
            pytest.skip("registers are known for x86-64 only")
        if os.geteuid() != 0:
            pytest.skip("only root traces a process that is not dumpable")
        self.pid, self.before = pid, Registers()

    def __enter__(self):
        ptrace(PTRACE_ATTACH, self.pid)
        os.waitpid(self.pid, 0x40000000)  # __WALL
        ptrace(PTRACE_GETREGS, self.pid, ctypes.byref(self.before))
        with open(f"/proc/{self.pid}/mem", "rb", 0) as memory:
            memory.seek(self.before.rip - 2)
            assert memory.read(2) == b"\x0f\x05", "it does not wait in a system call"
        return self.call

    def call(self, number, *arguments):
        r = Registers.from_buffer_copy(self.before)
        r.rip -= 2
        r.rax, r.orig_rax = number, ctypes.c_ulonglong(-1).value
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), [*arguments, -1, -1, -1, -1, -1, -1]):
            setattr(r, name, ctypes.c_ulonglong(value).value)
        ptrace(PTRACE_SETREGS, self.pid, ctypes.byref(r))
        ptrace(PTRACE_SINGLESTEP, self.pid)
        _, status = os.waitpid(self.pid, 0x40000000)
        assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTRAP, status
        ptrace(PTRACE_GETREGS, self.pid, ctypes.byref(r))
        value = ctypes.c_longlong(r.rax).value
        return -value if -4096 < value < 0 else 0

    def __exit__(self, *_):
        ptrace(PTRACE_SETREGS, self.pid, ctypes.byref(self.before))
        ptrace(PTRACE_DETACH, self.pid)


def name(number):
    return errno.errorcode.get(number, number)
