"""The README's examples, run as they stand there."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from conftest import BUILD, SOURCE, program, wait_for

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
        "HSMINT_PKCS11": str(program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")),
        "CURL_CA_BUNDLE": ready.service.ca,
        "SSL_CERT_FILE": ready.service.ca,
        "NODE_EXTRA_CA_CERTS": ready.service.ca,
    }


def run(command, shell, **options):
    options.setdefault("timeout", 60)
    r = subprocess.run(command, env=shell, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout


def need(name):
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")


def test_shell(shell):
    line = next(l.strip() for l in README.splitlines() if l.startswith("    hsmint exec") and "curl" in l)
    assert '"object"' in run(["sh", "-c", line], shell)


def test_python(shell):
    assert "gpt" in run(["python3", "-c", block("python", "urllib")], shell)


def test_node(shell):
    need("node")
    if int(run(["node", "--version"], shell).lstrip("v").split(".")[0]) < 18:
        pytest.skip("node is older than 18: no fetch")
    assert "gpt" in run(["node", "-e", block("js", "execFileSync")], shell)


# ---- by PKCS#11 ----


@pytest.fixture
def host(shell):
    """The environment of a program that loads the module. One that was built with
    AddressSanitizer wants its library first, and strangers' leaks are not ours."""
    with open(shell["HSMINT_PKCS11"], "rb") as f:
        if b"__asan_init" not in f.read():
            return shell
    library = run(["gcc", "-print-file-name=libasan.so"], shell).strip()
    return {**shell, "LD_PRELOAD": os.path.realpath(library), "ASAN_OPTIONS": "detect_leaks=0"}


def issued(service):
    """Every key that the double issued for a service account."""
    accounts = [a for p in service.control("state")["projects"] for a in p["service_accounts"]]
    return [service.control(f"keys/{id}")["value"] for a in accounts for id in a["key_ids"]]


def mints_and_takes_along(service, command, host, **options):
    """The command prints exactly the key that was issued; it ends with it."""
    before = set(issued(service))
    key = run(command, host, **options).strip()
    assert {key} == set(issued(service)) - before
    wait_for(lambda: service.alive() == 0, 2, "the account to go")
    assert not service.accepts(key)


def lines(tool):
    found = [l.strip() for l in README.splitlines() if l.startswith(f"    {tool} ")]
    assert len(found) == 3, f"README has {len(found)} lines of {tool}"
    return found


@pytest.mark.parametrize("tool", ["pkcs11-tool", "p11tool"])
def test_tools_mint_list_revoke(tool, host, service):
    need(tool)
    mint, show, revoke = [["sh", "-c", line] for line in lines(tool)]
    run(mint, host)
    (older,) = issued(service)
    assert service.accepts(older)
    run(mint, host)
    (newer,) = set(issued(service)) - {older}
    assert run(show, host).count("my-app") >= 2
    run(revoke, host)
    assert not service.accepts(newer)
    assert service.accepts(older) == (tool == "pkcs11-tool"), "p11tool deletes all that fits, pkcs11-tool the newest"


def test_pkcs11_c(host, service, place):
    source = place / "mint.c"
    source.write_text(block("c", "C_GenerateKey"))
    line = re.search(r"`(gcc mint\.c .*?)`", README).group(1)
    run(["sh", "-c", line + " -Wall -Wextra -Werror"], os.environ, cwd=place)
    mints_and_takes_along(service, [place / "mint"], host)


def test_pkcs11_python(host, service):
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import PyKCS11"], stderr=subprocess.DEVNULL).returncode == 0:
            break
    else:
        pytest.skip("PyKCS11 (python3-pykcs11) is not installed")
    mints_and_takes_along(service, [python, "-c", block("python", "PyKCS11")], host)


def test_pkcs11_go(host, service, place):
    need("go")
    (place / "main.go").write_text(block("go", "pkcs11.New"))
    init, get, _ = [shlex.split(part) for part in re.search(r"`(go mod .*?)`", README).group(1).split("&&")]
    run(init, os.environ, cwd=place)
    got = subprocess.run(get, cwd=place, capture_output=True, text=True, timeout=120)
    if got.returncode != 0:
        pytest.skip("github.com/miekg/pkcs11 is not to be had: " + got.stderr.strip().splitlines()[-1])
    # As `go run .`, but the sanitizer's library is for the program alone.
    run(["go", "build", "-o", "mint", "."], os.environ, cwd=place, timeout=300)
    mints_and_takes_along(service, [place / "mint"], host)


@pytest.fixture
def java(host):
    need("javac")
    if int(re.search(r"\d+", run(["javac", "--version"], host)).group()) < 17:
        pytest.skip("Java is older than 17")
    if "LD_PRELOAD" in host:
        pytest.skip("Java does not run with AddressSanitizer")
    return host


def test_pkcs11_java(java, service, place):
    (place / "Mint.java").write_text(block("java", "KeyGenerator"))
    mints_and_takes_along(service, ["java", place / "Mint.java"], java)


STORE = """
import java.security.*;
import javax.crypto.spec.SecretKeySpec;

class Store {
    public static void main(String[] args) throws Exception {
        Provider module = Security.getProvider("SunPKCS11")
            .configure("--name=hsmint\\nlibrary=" + System.getenv("HSMINT_PKCS11"));
        KeyStore store = KeyStore.getInstance("PKCS11", module);
        store.load(null, null);
        if (args[0].contains("mint"))
            store.setEntry("my-app", new KeyStore.SecretKeyEntry(new SecretKeySpec(new byte[1], "Generic")), null);
        System.out.println(new String(store.getKey("my-app", null).getEncoded()));
        if (args[0].contains("delete"))
            store.deleteEntry("my-app");
    }
}
"""


def test_pkcs11_java_key_store(java, ready, service, place):
    (place / "Store.java").write_text(STORE)

    def store(what):
        return run(["java", place / "Store.java", what], java).strip()

    with ready.attached() as c:
        c.change("SetRole", name="my-app", fields={"keep_value": True})
    first = store("mint")
    assert service.accepts(first) and store("read") == first
    # Setting an entry that is there takes its place: Java destroys the old one.
    second = store("mint, delete")
    assert second != first and not service.accepts(first) and not service.accepts(second)
    for _ in range(2):
        run(["sh", "-c", lines("pkcs11-tool")[0]], java)
    refused = subprocess.run(["java", place / "Store.java", "read"], env=java, capture_output=True, text=True, timeout=60)
    assert "sharing same CKA_LABEL" in refused.stderr
