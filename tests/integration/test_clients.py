"""Other people's PKCS#11 programs, as Debian ships them, on the module: each mints,
lists, reads and revokes where it can; each row of the table is printed. Programs in C,
Python, Go and Java stand in the README: test_readme.py."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import PIN, PROJECT, wait_for
from test_abuse import p11_kit_alone, p11_kit_proxy
from test_pkcs11 import Tool, leases, need, p11_kit_client, so  # noqa: F401 (a fixture)

ROLE = "kept"  # keeps its values, and is minted where no role is named


@pytest.fixture
def tool(ready, so):  # noqa: F811
    with ready.attached() as c:
        c.change("SetRole", name=ROLE, fields={"project_id": PROJECT, "keep_value": True, "default": True})
    return Tool(ready, so)


def library(name):
    for folder in ("/usr/lib/x86_64-linux-gnu/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11"):
        path = pathlib.Path(folder, name)
        if path.exists():
            return path
    pytest.skip(f"{name} is not installed")


class Client:
    """A row of the table: what each method returns is the program's output. read()
    gives None where it only reads what a listing finds, and so rightly gets no value."""

    def __init__(self, tool, place):
        self.tool, self.place = tool, place
        self.environment = dict(tool.environment)
        self.before = []
        self.open()

    def open(self):
        pass

    def close(self):
        pass

    def run(self, *command, status=0, stdin=b""):
        r = subprocess.run([*self.before, *command], env=self.environment, input=stdin, capture_output=True, timeout=60)
        text = r.stdout.decode(errors="replace") + r.stderr.decode(errors="replace")
        assert r.returncode == status, (command, r.returncode, text)
        return text


class Pkcs11Tool(Client):
    name = "pkcs11-tool"

    def open(self):
        self.module = self.tool.so

    def call(self, *options):
        return self.run(need("pkcs11-tool"), "--module", self.module, "--login", "--pin", PIN, *options)

    def mint(self):
        return self.call("--keygen", "--key-type", "GENERIC:32", "--label", ROLE, "--extractable")

    def list(self):
        return self.call("-O", "--type", "secrkey")

    def read(self):
        self.call("--read-object", "--type", "secrkey", "--label", ROLE, "-o", self.place / "key")
        return (self.place / "key").read_text()

    def revoke(self):
        return self.call("--delete-object", "--type", "secrkey", "--label", ROLE)


class CreateObject(Pkcs11Tool):
    name = "pkcs11-tool, C_CreateObject"

    def mint(self):
        (self.place / "empty").write_bytes(b"\0")
        return self.call("--write-object", self.place / "empty", "--type", "secrkey", "--label", ROLE, "--extractable")


class Spy(Pkcs11Tool):
    name = "pkcs11-tool, pkcs11-spy"

    def open(self):
        self.module = library("pkcs11-spy.so")
        self.environment |= {"PKCS11SPY": str(self.tool.so), "PKCS11SPY_OUTPUT": str(self.place / "spy.log")}


class P11tool(Client):
    name = "p11tool"
    provider = True

    def call(self, *options):
        self.environment["GNUTLS_PIN"] = PIN
        words = ["--provider", self.tool.so] if self.provider else []
        return self.run(need("p11tool"), *words, "--batch", "--login", *options)

    def url(self):
        return f"pkcs11:token=hsmint;object={ROLE};type=secret-key"

    def mint(self):
        return self.call("--write", "--secret-key", "00", "--label", ROLE, "pkcs11:token=hsmint")

    def list(self):
        return self.call("--list-all", "pkcs11:token=hsmint;type=secret-key")

    def read(self):
        text = self.call("--export", self.url())
        return subprocess.run(["base64", "-d"], input="".join(re.findall(r"(?m)^[\w+/=]+$", text)).encode(),
                              capture_output=True, check=True).stdout.decode()

    def revoke(self):
        return self.call("--delete", self.url())


class P11toolModule(P11tool):
    """As it is installed: p11-kit finds hsmint.module, and GnuTLS p11-kit."""

    name = "p11tool, hsmint.module"
    provider = False

    def open(self):
        self.before = p11_kit_alone(self.place, f"module: {self.tool.so}\ncritical: no\n")


class Nss(Client):
    name = "NSS modutil, symkeyutil"

    def open(self):
        self.db = self.place / "nss"
        self.db.mkdir()
        self.run(need("certutil"), "-N", "-d", self.db, "--empty-password")
        self.run(need("modutil"), "-dbdir", self.db, "-add", "hsmint", "-libfile", self.tool.so, "-force")
        assert "token: hsmint" in self.run("modutil", "-dbdir", self.db, "-list")

    def call(self, *options, status=0):
        return self.run(need("symkeyutil"), *options, "-d", self.db, "-h", "hsmint", "-p", PIN, status=status)

    def mint(self):
        return self.call("-K", "-n", ROLE, "-t", "generic", "-s", "32")

    def list(self):
        return self.call("-L")

    def read(self):
        """It lists all keys and picks one; a listing hands no values out."""
        self.call("-E", "-n", ROLE, "-k", self.place / "key", status=255)
        assert not (self.place / "key").exists() or (self.place / "key").read_bytes() == b""

    def revoke(self):
        return self.call("-D", "-n", ROLE)


PYKCS11 = """
import sys
from PyKCS11 import *
module, pin, role, what = sys.argv[1:]
lib = PyKCS11Lib()
lib.load(module)
s = lib.openSession(lib.getSlotList(tokenPresent=True)[0], CKF_SERIAL_SESSION | CKF_RW_SESSION)
s.login(pin)
keys = [(CKA_CLASS, CKO_SECRET_KEY), (CKA_LABEL, role)]
if what == "mint":
    s.createObject([*keys, (CKA_KEY_TYPE, CKK_GENERIC_SECRET), (CKA_TOKEN, True)])
for key in s.findObjects(keys):
    if what == "list":
        print(s.getAttributeValue(key, [CKA_LABEL])[0])
    if what == "read":
        print(bytes(s.getAttributeValue(key, [CKA_VALUE])[0]).decode(), end="")
    if what == "revoke":
        s.destroyObject(key)
s.logout()
s.closeSession()
"""


class PyKCS11(Client):
    name = "PyKCS11"

    def open(self):
        self.python = next((p for p in ("python3", "/usr/bin/python3") if self.has(p)), None)
        if not self.python:
            pytest.skip("python3-pykcs11 is not installed")

    def has(self, python):
        return shutil.which(python) and subprocess.run([python, "-c", "import PyKCS11"], capture_output=True).returncode == 0

    def call(self, what):
        return self.run(self.python, "-c", PYKCS11, self.tool.so, PIN, ROLE, what)

    def mint(self):
        return self.call("mint")

    def list(self):
        return self.call("list")

    def read(self):
        return self.call("read")

    def revoke(self):
        return self.call("revoke")


JAVA = """
import java.security.*;
import java.util.Collections;
import javax.crypto.spec.SecretKeySpec;

class Store {
    public static void main(String[] args) throws Exception {
        String module = args[0], role = args[1], what = args[2];
        char[] pin = new java.util.Scanner(System.in).nextLine().toCharArray();
        KeyStore store = KeyStore.getInstance("PKCS11",
            Security.getProvider("SunPKCS11").configure("--name=hsmint\\nlibrary=" + module));
        store.load(null, pin);
        switch (what) {
        case "mint" -> store.setEntry(role, new KeyStore.SecretKeyEntry(new SecretKeySpec(new byte[1], "Generic")), null);
        case "list" -> System.out.println(Collections.list(store.aliases()));
        case "read" -> System.out.print(new String(store.getKey(role, null).getEncoded()));
        case "revoke" -> store.deleteEntry(role);
        }
    }
}
"""


class Java(Client):
    name = "Java SunPKCS11"

    def open(self):
        version = subprocess.run([need("javac"), "--version"], capture_output=True, text=True).stdout
        if int(re.search(r"\d+", version).group()) < 17:
            pytest.skip("Java is older than 17")
        (self.place / "Store.java").write_text(JAVA)

    def call(self, what):
        return self.run("java", self.place / "Store.java", self.tool.so, ROLE, what, stdin=f"{PIN}\n".encode())

    def mint(self):
        return self.call("mint")

    def list(self):
        return self.call("list")

    def read(self):
        return self.call("read")

    def revoke(self):
        return self.call("revoke")


class Dump(Pkcs11Tool):
    """pkcs11-dump lists; what it cannot do pkcs11-tool does."""

    name = "pkcs11-dump"

    def list(self):
        slot = re.search(r"(?m)^(\d+)\thsmint", self.run(need("pkcs11-dump"), "slotlist", self.tool.so)).group(1)
        return self.run("pkcs11-dump", "dump", self.tool.so, slot, PIN)

    def read(self):
        assert "sk-" not in self.list()


# ---- through p11-kit ----


class Proxy(Pkcs11Tool):
    name = "pkcs11-tool, p11-kit-proxy"

    def open(self):
        self.module, self.before = p11_kit_proxy(self.tool.so, self.place)


class Server(Pkcs11Tool):
    """A container that sees the socket of `p11-kit server`, and nothing else of ours."""

    name = "pkcs11-tool, p11-kit server"

    def open(self):
        self.address = self.place / "p11-kit.socket"
        self.server = subprocess.Popen(
            [need("p11-kit"), "server", "-f", "-n", self.address, "--provider", self.tool.so, "pkcs11:token=hsmint"],
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        wait_for(self.address.exists, 10, "p11-kit server to listen")
        del self.environment["HSMINT_SOCKET"]
        self.far()

    def far(self):
        self.module = p11_kit_client()
        self.environment["P11_KIT_SERVER_ADDRESS"] = f"unix:path={self.address}"

    def close(self):
        self.server.terminate()
        self.server.wait(10)


class RemoteSocket(Server):
    name = "pkcs11-tool, remote: unix:path="

    def far(self):
        self.module, _ = p11_kit_proxy(self.tool.so, self.place)
        shutil.rmtree(self.place / "modules")
        self.before = p11_kit_alone(self.place, f"remote: unix:path={self.address}\n")


class RemoteCommand(Pkcs11Tool):
    name = "pkcs11-tool, remote: |command"

    def open(self):
        self.module, _ = p11_kit_proxy(self.tool.so, self.place)
        shutil.rmtree(self.place / "modules")
        self.before = p11_kit_alone(self.place, f"remote: |{need('p11-kit')} remote {self.tool.so}\n")


class Ssh(Server):
    """spec/PKCS11.md's recipe: a real sshd carries the socket of `p11-kit server`."""

    name = "pkcs11-tool, p11-kit server over ssh"

    def far(self):
        need("ssh"), need("ssh-keygen")
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        if not os.path.exists(sshd) or os.geteuid() != 0:
            pytest.skip("sshd is not installed, or we are not root")
        os.makedirs("/run/sshd", exist_ok=True)
        for key in ("host", "user"):
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.place / key)
        config = self.place / "sshd_config"
        config.write_text(
            f"HostKey {self.place}/host\nAuthorizedKeysFile {self.place}/user.pub\nStrictModes no\nPidFile none\n"
            "UsePAM no\nPermitRootLogin yes\nAllowStreamLocalForwarding yes\n"
        )
        self.address, there = self.place / "forwarded.socket", self.address
        self.ssh = subprocess.Popen(
            ["ssh", "-F", "none", "-o", f"ProxyCommand {sshd} -i -f {config}", "-o", "StrictHostKeyChecking=no"]
            + ["-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes", "-i", self.place / "user"]
            + ["-N", "-R", f"{self.address}:{there}", "root@host"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        wait_for(lambda: self.address.exists() or self.ssh.poll() is not None, 15, "ssh to forward")
        assert self.ssh.poll() is None, self.ssh.stderr.read()
        super().far()

    def close(self):
        if hasattr(self, "ssh"):
            self.ssh.terminate()
            self.ssh.wait(10)
            self.ssh.stderr.close()
        super().close()


CLIENTS = [Pkcs11Tool, CreateObject, Spy, P11tool, P11toolModule, Nss, PyKCS11, Java, Dump]
CLIENTS += [Proxy, Server, RemoteSocket, RemoteCommand, Ssh]


def the_key(service):
    """The value that the double issued last."""
    accounts = [a for p in service.control("state")["projects"] for a in p["service_accounts"]]
    (key,) = [service.control(f"keys/{id}")["value"] for a in accounts for id in a["key_ids"]]
    return key


@pytest.mark.parametrize("client", CLIENTS, ids=lambda c: c.name.replace(" ", "-"))
def test_client(client, tool, ready, service, place, capsys):
    if tool.environment.get("LD_PRELOAD") and client is not Pkcs11Tool:
        pytest.skip("other people's programs and a sanitizer")
    row = []
    c = client.__new__(client)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: hasattr(c, "server") and c.close())
        c.__init__(tool, place)
        c.mint()
        (lease,) = leases(ready)
        assert lease["role"] == ROLE and not lease["bound"] and service.alive() == 1
        row.append("yes")
        assert ROLE in c.list()
        row.append("yes")
        key = the_key(service)
        read = c.read()
        assert read in (None, key) and service.accepts(key)
        row.append("yes" if read else "refused to a listing")
        c.revoke()
        assert leases(ready) == [] and service.alive() == 0 and not service.accepts(key)
        row.append("yes")
    with capsys.disabled():
        print(f"# | {client.name} | " + " | ".join(row) + " |  (mint, list, read, revoke)")


# ---- pkcs11-tool's own tests of a module ----


@pytest.mark.parametrize("options", [["--test-fork"], ["--test"], ["--test-threads", "IGISLT", "--test-threads", "ILGISLT0"]])
def test_pkcs11_tools_own_tests(tool, options):
    text = tool.run(*options).decode()
    assert "error" not in text.lower().replace("no errors", ""), text


# ---- who has no use for us says so politely ----


def test_certutil_finds_nothing(tool, place):
    nss = Nss(tool, place)
    assert "hsmint" not in nss.run("certutil", "-L", "-d", nss.db, "-h", "hsmint", "-f", "/dev/null")
    assert "no keys found" in nss.run("certutil", "-K", "-d", nss.db, "-h", "hsmint", "-f", "/dev/null", status=255)


def test_ssh_keygen_finds_no_key_of_a_person(tool):
    """The log's public key is public; nobody can sign in with it."""
    c = Client(tool, None)
    text = c.run(need("ssh-keygen"), "-D", tool.so)
    assert all("hsmint-log" in line for line in text.splitlines() if line), text


def test_openssl_engine_finds_nothing(tool):
    c = Client(tool, None)
    engines = subprocess.run(["openssl", "version", "-e"], capture_output=True, text=True).stdout
    folder = re.search(r'"(.*)"', engines)
    if not folder or not os.path.exists(os.path.join(folder.group(1), "pkcs11.so")):
        pytest.skip("libengine-pkcs11-openssl is not installed")
    c.environment["PKCS11_MODULE_PATH"] = str(tool.so)
    url = f"pkcs11:token=hsmint;object={ROLE};type=private;pin-value={PIN}"
    text = c.run("openssl", "pkey", "-engine", "pkcs11", "-inform", "engine", "-in", url, status=1)
    assert "not found" in text
