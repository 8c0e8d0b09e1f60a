"""A daemon whose wall and boot clock a test moves: clockstep.c."""

from conftest import not_sanitized, program, wait_for


def spawn_with_clock(daemon, wall_s=0, boot_s=0):
    not_sanitized("a sanitizer wants to be loaded first")
    shim = program("tests", "integration", ".libs", "clockstep.so")
    off = set_clock(daemon, wall_s, boot_s)
    daemon.spawn(env={"LD_PRELOAD": str(shim), "CLOCKSTEP": str(off), "HSMINTD_ENVIRONMENT": "own"})
    wait_for(daemon.answers, 15)
    return daemon


def set_clock(daemon, wall_s, boot_s=0):
    """Both alike: a machine that was suspended, or off. The wall clock alone: set."""
    new = daemon.place / "off.new"
    new.write_text(f"{wall_s * 1000} {boot_s * 1000}")
    return new.rename(daemon.place / "off")
