"""The README's examples, run as they stand there."""

import os
import re
import shutil
import subprocess

import pytest

from conftest import BUILD, SOURCE, program

README = (SOURCE / "README.md").read_text()


def block(language, containing):
    """The fenced block of that language that holds the words."""
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in b]
    assert len(found) == 1, f"{len(found)} {language} blocks with {containing!r}"
    return found[0]


@pytest.fixture
def shell(ready, place):
    """What `. quickstart/env` gives a newcomer's shell."""
    program("hsmint")
    return {
        **os.environ,
        "PATH": f"{BUILD}:{os.environ['PATH']}",
        "HSMINT_SOCKET": str(ready.socket),
        "CURL_CA_BUNDLE": ready.service.ca,
        "SSL_CERT_FILE": ready.service.ca,
        "NODE_EXTRA_CA_CERTS": ready.service.ca,
    }


def run(command, shell, **options):
    r = subprocess.run(command, env=shell, capture_output=True, text=True, timeout=60, **options)
    assert r.returncode == 0, r.stderr
    return r.stdout


def test_shell(shell):
    line = next(l.strip() for l in README.splitlines() if l.startswith("    hsmint exec") and "curl" in l)
    assert '"object"' in run(["sh", "-c", line], shell)


def test_python(shell):
    assert "gpt" in run(["python3", "-c", block("python", "urllib")], shell)


def test_node(shell):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    if int(run(["node", "--version"], shell).lstrip("v").split(".")[0]) < 18:
        pytest.skip("node is older than 18: no fetch")
    assert "gpt" in run(["node", "-e", block("js", "execFileSync")], shell)
