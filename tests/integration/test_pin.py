"""PINs: which of them the HSM sees, and what a locked daemon says."""

import os
import re
import subprocess

import pytest

from conftest import SOURCE, not_sanitized, patience, program, sanitized, wait_for
from test_pkcs11 import need
from varlink import Error, request_id

SPIES = ["/usr/lib/x86_64-linux-gnu/pkcs11-spy.so", "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so", "/usr/lib64/pkcs11-spy.so"]


@pytest.fixture
def spied(bare):
    """A locked daemon whose HSM module writes down each call (OpenSC's spy)."""
    spy = next((s for s in SPIES if os.path.exists(s)), None)
    if not spy:
        pytest.skip("opensc's pkcs11-spy is not installed")
    bare.spy_log = bare.place / "spy.log"
    bare.settings["hsm.env"] |= {"PKCS11SPY": bare.token.module, "PKCS11SPY_OUTPUT": bare.spy_log}
    bare.settings["hsm"]["module"] = spy
    del bare.settings["hsm"]["pin_source"]
    return bare.start()


def logins(daemon):
    """How many C_Login the HSM saw, and how many it refused."""
    text = daemon.spy_log.read_text(errors="replace") if daemon.spy_log.exists() else ""
    calls = re.findall(r"\d+: C_Login\b.*?Returned:\s+\d+ (\w+)", text, re.S)
    return len(calls), sum(rv != "CKR_OK" for rv in calls)


def test_locked_until_a_pin_comes(spied):
    with spied.attached() as c:
        slots = c.call("Slots")
        assert slots["locked"] and not slots["protected"]
        assert pytest.raises(Error, c.change, "Init").value.name == "Locked"
        e = pytest.raises(Error, c.call, "Login").value
        assert "PIN" in e.text or "pin" in e.text, e
        c.call("Login", secret=spied.token.pin.encode())
        assert not c.call("Slots")["locked"]
        c.change("Init")
        c.call("Lock")
        assert c.call("Slots")["locked"]
        c.call("Login", secret=spied.token.pin.encode())
        assert not c.call("Slots")["locked"]


def test_a_thousand_wrong_pins(spied):
    """The HSM saw one. scrypt answers the others: no more is seen of us in a thousand of
    them by a sanitizer than in fifty."""
    with spied.attached() as c:
        names = []
        for i in range(50 if sanitized() else 1000):
            with pytest.raises(Error) as e:
                c.call("Login", secret=b"wrong-%d" % i)
            names.append(e.value.name)
        assert names[0] == "PinWrong"
        assert set(names[1:]) <= {"PinWrong", "PinHeld"} and "PinHeld" in names
        assert logins(spied) == (1, 1)
        assert b"wrong-".decode() not in spied.log()
        # An administrator says that the next one is right, and it is.
        c.call("Login", secret=spied.token.pin.encode(), force=True)
        assert not c.call("Slots")["locked"]
        assert logins(spied)[1] == 1


def test_wrong_pins_after_login_stay_here(spied):
    """While logged in, the keeper's verifier answers."""
    with spied.attached() as c:
        c.call("Login", secret=spied.token.pin.encode())
        before = logins(spied)
        for i in range(3):
            assert pytest.raises(Error, c.call, "Login", secret=b"nonsense%d" % i).value.name == "PinWrong"
        c.call("Login", secret=spied.token.pin.encode())
        assert logins(spied) == before


def test_the_hsms_so_pin_is_nobodys(spied):
    """C_Login(CKU_SO), C_InitToken, C_InitPIN and C_SetPIN of our module: the HSM sees one
    C_Login, its user's."""
    tool = [need("pkcs11-tool"), "--module", program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")]
    not_sanitized("pkcs11-tool has no sanitizer to load it with")

    def run(*words):
        r = subprocess.run(
            [*tool, *words], env={**os.environ, "HSMINT_SOCKET": str(spied.socket)}, capture_output=True, text=True, timeout=60
        )
        return r.returncode, r.stdout + r.stderr

    pin = spied.token.pin
    for words in (
        ["--init-token", "--label", "x", "--so-pin", "314159"],
        ["--login", "--login-type", "so", "--so-pin", pin, "--init-pin", "--new-pin", "999999"],
        ["--login", "--pin", pin, "--change-pin", "--new-pin", "999999"],
    ):
        code, text = run(*words)
        assert code != 0 and "CKR_FUNCTION_NOT_SUPPORTED" in text, (words, text)
    log = spied.spy_log.read_text(errors="replace")
    assert logins(spied) == (1, 0) and "CKU_USER" in log
    assert not re.search(r"CKU_SO|C_InitToken|C_InitPIN|C_SetPIN", log)


@pytest.mark.parametrize("pin", [b"", b"x" * 70000], ids=["empty", "too-long"])
def test_pins_that_are_none(spied, pin):
    import os

    with spied.attached() as c:
        r, w = os.pipe()
        if len(pin) < 65536:
            os.write(w, pin)
            os.close(w)
            with pytest.raises(Error) as e:
                c.call("Login", fds=[r])
        else:
            os.set_blocking(w, False)
            os.write(w, pin)  # as much as fits
            os.close(w)
            with pytest.raises(Error) as e:
                c.call("Login", fds=[r])
        assert e.value.name in ("Invalid", "PinWrong")
        os.close(r)
        assert logins(spied)[0] == 0


def test_pin_that_never_comes(spied):
    """A pipe that nobody writes to holds up nobody else."""
    import os
    import time

    r, w = os.pipe()
    with spied.attached() as c, spied.attached() as other:
        c.send({"method": "org.hsmint.Login"}, [r])
        began = time.monotonic()
        other.call("Slots")
        assert time.monotonic() - began < patience(2)
    os.close(r)
    os.close(w)


def test_file_instead_of_a_pipe(spied):
    with open("/dev/zero", "rb") as f, spied.attached() as c:
        with pytest.raises(Error) as e:
            c.call("Login", fds=[f.fileno()])
        assert e.value.name == "Invalid"
    with open(SOURCE / "README.md", "rb") as f, spied.attached() as c:
        with pytest.raises(Error) as e:
            c.call("Login", fds=[f.fileno()])
        assert e.value.name == "Invalid"
