"""The module with the standard tools: pkcs11-tool, p11tool, a C program through
p11-kit; behind it the real daemon, keeper, SoftHSM2 and the double."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from conftest import PIN, PROJECT, SOURCE, patience, program, wait_for


@pytest.fixture
def so():
    return program("module", "pkcs11", ".libs", "hsmint-pkcs11.so")


def need(name):
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def loader(so):
    """What a program that was built without a sanitizer needs to load a module
    that was built with one; of its own leaks nothing is said."""
    if b"__asan_init" not in so.read_bytes():
        return {}
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    return {"LD_PRELOAD": os.path.realpath(found), "ASAN_OPTIONS": "detect_leaks=0"}


class Tool:
    """pkcs11-tool with our module, as one user of one daemon."""

    def __init__(self, daemon, so):
        self.path, self.daemon, self.so = need("pkcs11-tool"), daemon, so
        self.environment = {**os.environ, **loader(pathlib.Path(so)), "HSMINT_SOCKET": str(daemon.socket)}

    def try_run(self, *options, login=True, **popen):
        command = [self.path, "--module", self.so]
        if login:
            command += ["--login", "--pin", PIN]
        return subprocess.run(
            [*command, *options], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **popen
        )

    def run(self, *options, **more):
        r = self.try_run(*options, **more)
        assert r.returncode == 0, (options, r.stdout, r.stderr)
        return r.stdout

    def fails(self, *options, **more):
        r = self.try_run(*options, **more)
        assert r.returncode != 0, (options, r.stdout)
        return (r.stdout + r.stderr).decode(errors="replace")

    def mint(self, role="my-app", *options):
        return self.run("--keygen", "--key-type", "GENERIC:32", "--label", role, "--extractable", *options).decode()


@pytest.fixture
def tool(ready, so):
    return Tool(ready, so)


def key_in(output):
    """pkcs11-tool prints a key's value in hex."""
    m = re.search(r"VALUE:\s*((?:[0-9a-f]{2,}\s+)+)", output)
    return bytes.fromhex("".join(m.group(1).split())).decode() if m else None


def leases(daemon):
    with daemon.attached() as c:
        return c.call("ListLeases", live=True)["leases"]


# ---- pkcs11-tool ----


def test_slots_and_token(tool):
    text = tool.run("-L", login=False).decode()
    assert "hsmint" in text and "login required" in text and "token initialized" in text and "PIN initialized" in text
    assert "GENERIC-SECRET-KEY-GEN" in tool.run("-M", login=False).decode()
    assert "hsmint" in tool.run("-I", login=False).decode()


def test_mint_list_delete(tool, ready, service):
    minted = tool.mint()
    assert "my-app" in minted
    (lease,) = leases(ready)
    assert lease["role"] == "my-app" and not lease["bound"] and lease["program"].startswith("hsmint-pkcs11")
    assert service.alive() == 1
    listed = tool.run("-O").decode()
    assert "my-app" in listed and lease["lease_id"].encode().hex() in listed
    # It was minted by another process, and the role keeps no values.
    assert key_in(listed) is None
    refused = tool.fails("--read-object", "--type", "secrkey", "--label", "my-app")
    assert "sk-svcacct" not in refused
    tool.run("--delete-object", "--type", "secrkey", "--id", lease["lease_id"].encode().hex())
    assert leases(ready) == [] and service.alive() == 0


def test_the_minting_process_reads_the_key(tool, service):
    key = key_in(tool.mint())
    if key is None:
        pytest.skip("this pkcs11-tool shows no value of a new key")
    assert service.accepts(key)


def test_a_kept_value_is_read_exactly(tool, ready, service):
    with ready.attached() as c:
        c.change("SetRole", name="kept", fields={"project_id": PROJECT, "keep_value": True})
    tool.mint("kept")
    # A listing hands nothing out ...
    assert key_in(tool.run("-O").decode()) is None
    # ... who names it gets exactly what the service issued.
    key = tool.run("--read-object", "--type", "secrkey", "--label", "kept").decode()
    assert key.startswith("sk-svcacct-") and service.accepts(key)
    lease_id = leases(ready)[0]["lease_id"]
    assert tool.run("--read-object", "--type", "secrkey", "--id", lease_id.encode().hex()).decode() == key
    tool.run("--delete-object", "--type", "secrkey", "--label", "kept")
    assert not service.accepts(key)


def test_what_is_refused(tool, service):
    hidden = tool.fails("--keygen", "--key-type", "GENERIC:32", "--label", "my-app")
    assert "CKR_ATTRIBUTE_VALUE_INVALID" in hidden
    assert "CKR_ATTRIBUTE_VALUE_INVALID" in tool.fails(
        "--keygen", "--key-type", "GENERIC:32", "--label", "no-such-role", "--extractable"
    )
    for name in ("a\r\nX-Evil: 1", 'q"uote', "\u202eabc", "../../x", "x" * 300):
        tool.fails("--keygen", "--key-type", "GENERIC:32", "--label", name, "--extractable")
    tool.fails("--keygen", "--key-type", "AES:32", "--label", "my-app", "--extractable")
    assert "CKR_USER_NOT_LOGGED_IN" in tool.fails(
        "--keygen", "--key-type", "GENERIC:32", "--label", "my-app", "--extractable", login=False
    )
    assert "CKR_FUNCTION_NOT_SUPPORTED" in tool.fails("--init-token", "--label", "x", "--so-pin", "1234", login=False)
    assert service.alive() == 0


def test_cka_id_is_kept(tool, ready):
    tool.mint("my-app", "--id", "cafe00")
    assert leases(ready)[0]["id"] == "cafe00"
    assert "cafe00" in tool.run("-O").decode()
    tool.run("--delete-object", "--type", "secrkey", "--id", "cafe00")
    assert leases(ready) == []


def test_listing_without_login_shows_no_lease(tool):
    tool.mint()
    assert "my-app" not in tool.run("-O", login=False).decode()


def test_roles_as_data(tool, ready, place):
    role = place / "role.json"
    role.write_text(json.dumps({"project_id": PROJECT, "ttl": "30m", "max_ttl": 7200}))
    as_so = ["--login", "--login-type", "so", "--so-pin", PIN]
    write = ["--write-object", role, "--type", "data", "--application-label", "hsmint:role", "--label", "new-role"]
    tool.run(*as_so, *write, login=False)
    with ready.attached() as c:
        stored = c.call("GetRole", name="new-role")["role"]
    assert stored["ttl"] == 1800 and stored["project_id"] == PROJECT
    tool.mint("new-role")
    assert "new-role" in tool.run("-O", "--type", "data").decode()
    read = ["--read-object", "--type", "data", "--application-label", "hsmint:role", "--label", "new-role"]
    copy = place / "copy.json"
    copy.write_bytes(tool.run(*read))
    assert json.loads(copy.read_text())["ttl"] == 1800
    # What was read can be written back.
    tool.run(*as_so, *[copy if x == role else x for x in write], login=False)
    role.write_text('{"ttl": "30m", "no_such_field": 1}')
    assert "CKR_" in tool.fails(*as_so, *write, login=False)
    tool.run("--delete-object", "--type", "secrkey", "--label", "new-role")
    tool.run("--delete-object", "--type", "data", "--label", "new-role", "--application-label", "hsmint:role")
    assert "new-role" not in tool.run("-O", "--type", "data").decode()


def test_seal_through_pkcs11(daemon, service, so, place):
    with daemon.attached() as c:
        c.change("Init")
    tool = Tool(daemon, so)
    as_so = ["--login", "--login-type", "so", "--so-pin", PIN]
    config = place / "config.json"
    config.write_text(json.dumps({"api_endpoint": service.url, "organization_id": "org-adminsim"}))
    tool.run(
        *as_so, "--write-object", config, "--type", "data", "--application-label", "hsmint:config", "--label", "c", login=False
    )
    seal = ["--write-object", service.admin_key_file, "--type", "secrkey", "--label", "admin-key"]
    tool.run(*as_so, *seal, login=False)
    with daemon.attached() as c:
        assert c.call("GetConfig")["config"]["admin_api_key_id"].startswith("key_")
    shown = tool.run("-O").decode()
    assert "admin-key" in shown and "hsmint:config" in shown and service.admin_key not in shown
    refused = tool.fails("--read-object", "--type", "secrkey", "--label", "admin-key")
    assert service.admin_key not in refused
    tool.run("--keygen", "--key-type", "GENERIC:32", "--label", "admin-key", "--extractable")  # rotates
    with daemon.attached() as c:
        retiring = c.call("GetConfig")["config"]["retiring"]
    # The first one, that a person has seen, and the one that took its place.
    assert {r["state"] for r in retiring} <= {"retire", "confirm"} and retiring[-1]["cause"] in ("first", "command")


def test_without_a_daemon(so, place):
    """Slots show, nothing starts, and a session says why not."""
    environment = {**os.environ, **loader(so), "HSMINT_SOCKET": str(place / "nobody")}
    began = time.monotonic()
    r = subprocess.run([need("pkcs11-tool"), "--module", so, "-L"], env=environment, capture_output=True, timeout=120)
    assert b"hsmint" in r.stdout and time.monotonic() - began < patience(5)
    assert not (place / "nobody").exists()


def test_the_daemon_can_restart(ready, so, service):
    tool = Tool(ready, so)
    tool.mint()
    ready.kill()
    tool.fails("-O")
    ready.start()
    assert "my-app" in tool.run("-O").decode()


# ---- p11-kit: p11tool and a program ----


def test_p11tool_lists_and_deletes(tool, ready, so):
    p11tool = need("p11tool")
    environment = {**tool.environment, "GNUTLS_PIN": PIN}
    base = [p11tool, "--provider", so, "--batch", "--login"]

    def run(*options):
        """Again, where a busy daemon has not told its slots soon enough: then the token has
        no serial yet, and a URL with one finds nothing."""
        end = time.monotonic() + patience(5)
        while True:
            r = subprocess.run([*base, *options], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            if r.returncode == 0:
                return r.stdout
            assert "not available" in r.stderr and time.monotonic() < end, (options, r.stdout, r.stderr)

    tool.mint()
    tokens = run("--list-tokens")
    assert "token=hsmint" in tokens
    token = re.search(r"URL: (pkcs11:\S*token=hsmint\b\S*)", tokens).group(1)
    listed = run("--list-all", token)
    assert "my-app" in listed
    url = re.search(r"URL: (\S*object=my-app\S*)", listed).group(1)
    run("--delete", url)
    assert leases(ready) == []


class Client:
    """tests/integration/p11client.c through p11-kit: commands in, lines out."""

    def __init__(self, ready, so, place):
        path = program("tests", "integration", "p11client")
        environment = {**os.environ, "HSMINT_SOCKET": str(ready.socket)}
        self.process = subprocess.Popen(
            [path, so], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline().strip()
        assert answer, "p11client has ended"
        return answer

    def ok(self, line):
        answer = self.ask(line)
        assert answer.split()[0] == "ok", (line, answer)
        return answer.split()[1:]

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def client(ready, so, place):
    c = Client(ready, so, place)
    yield c
    c.end()


def test_a_program_mints_reads_renews(client, ready, service):
    client.ok("open")
    client.ok(f"login {PIN}")
    (handle,) = client.ok("mint my-app token 600")
    (key,) = client.ok(f"read {handle}")
    assert service.accepts(key)
    (left,) = client.ok(f"ttl {handle}")
    assert 590 <= int(left) <= 600
    client.ok(f"renew {handle} 3000")
    (left,) = client.ok(f"ttl {handle}")
    assert 2990 <= int(left) <= 3000
    assert client.ask(f"renew {handle} 9999999").startswith("0x13")  # CKR_ATTRIBUTE_VALUE_INVALID
    assert "max_ttl" in " ".join(client.ok("why"))
    client.ok(f"destroy {handle}")
    assert not service.accepts(key) and service.alive() == 0


def test_wrong_pin_is_told(client):
    client.ok("open")
    assert client.ask("login 000000").startswith("0xa0")  # CKR_PIN_INCORRECT
    client.ok(f"login {PIN}")


def test_a_bound_lease_ends_with_its_session(client, ready, service):
    client.ok("open")
    client.ok(f"login {PIN}")
    (handle,) = client.ok("mint my-app bound 0")
    (key,) = client.ok(f"read {handle}")
    assert service.accepts(key) and leases(ready)[0]["bound"]
    client.ok("close")
    wait_for(lambda: service.alive() == 0, 2, "the account to go")
    assert not service.accepts(key)


def test_logout_and_finalize_end_bound_leases(client, service):
    for end in ("logout", "finalize"):
        client.ok("open")
        client.ok(f"login {PIN}")
        client.ok("mint my-app bound 0")
        client.ok("mint my-app token 0")
        kept = service.alive() - 1
        client.ok(end)
        wait_for(lambda: service.alive() == kept, 2, "the account to go")
        if end == "logout":
            client.ok("finalize")
            client.ok("initialize")


def test_sigkill_ends_bound_leases_though_a_child_holds_the_socket(client, service):
    client.ok("open")
    client.ok(f"login {PIN}")
    client.ok("mint my-app bound 0")
    (child,) = client.ok("fork sleep")
    try:
        assert service.alive() == 1
        client.process.send_signal(signal.SIGKILL)
        wait_for(lambda: service.alive() == 0, 1, "the account to go within a second")
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_forked_child_owns_nothing(client, service):
    client.ok("open")
    client.ok(f"login {PIN}")
    (handle,) = client.ok("mint my-app bound 0")
    # CKR_CRYPTOKI_NOT_INITIALIZED; whatever p11-kit makes of C_Finalize then,
    # the parent's lease lives on.
    assert client.ok("fork use")[0] == "0x190"
    client.ok("fork anew")
    (key,) = client.ok(f"read {handle}")
    assert service.accepts(key)


def test_dlclose_without_finalize(client, service):
    client.ok("open")
    client.ok(f"login {PIN}")
    client.ok("mint my-app bound 0")
    client.ok("exit")
    client.process.wait(10)
    wait_for(lambda: service.alive() == 0, 2, "the account to go")


def test_a_client_survives_a_restart_of_the_daemon(client, ready, service):
    client.ok("open")
    client.ok(f"login {PIN}")
    client.ok("mint my-app token 0")
    ready.kill()
    assert client.ask("mint my-app token 0").startswith("0x")
    ready.start()
    answer = client.ask("mint my-app token 0")
    if answer.startswith("0x101"):  # the new daemon wants to see a PIN first
        client.ok(f"login {PIN}")
        client.ok("mint my-app token 0")
    assert service.alive() == 2


def test_login_unlocks_a_daemon_without_pin(daemon_stopped, so, place, service):
    """User mode as a person has it: the PIN comes by C_Login."""
    d = daemon_stopped
    d.settings["hsm"].pop("pin_source")
    d.start()
    with d.attached() as c:
        c.call("Login", secret=PIN.encode())
    d.prepare()
    client = Client(d, so, place)
    try:
        client.ok("open")
        assert client.ask("mint my-app token 0").startswith("0x101")  # CKR_USER_NOT_LOGGED_IN
        client.ok(f"login {PIN}")
        client.ok("mint my-app token 0")
        d.kill()
        d.start()
        # The new daemon has no PIN; C_Login may be called again.
        assert client.ask("mint my-app token 0").startswith("0x101")
        assert "lock" in " ".join(client.ok("why")).lower()
        client.ok(f"login {PIN}")
        client.ok("mint my-app token 0")
    finally:
        client.end()
    assert service.alive() == 2


def test_before_init_there_is_a_slot_and_a_reason(daemon, so, place):
    tool = Tool(daemon, so)
    assert "hsmint" in tool.run("-L", login=False).decode()
    client = Client(daemon, so, place)
    try:
        client.ok("open")
        login = client.ask(f"login {PIN}")
        if login.startswith("ok"):
            assert client.ask("mint my-app token 0").startswith("0x30")  # CKR_DEVICE_ERROR
        assert "init" in " ".join(client.ok("why"))
    finally:
        client.end()


def test_strace_the_module_opens_no_hsm_network_or_store(tool, ready, place):
    strace = need("strace")
    out = place / "strace"
    tool.path, tool_path = strace, tool.path
    command = ["-f", "-o", out, "-e", "trace=openat,open,socket,connect,execve", tool_path]
    r = subprocess.run(
        [strace, *command, "--module", tool.so, "--login", "--pin", PIN]
        + ["--keygen", "--key-type", "GENERIC:32", "--label", "my-app", "--extractable"],
        env=tool.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )
    text = out.read_text()
    if "ptrace" in r.stderr.decode() and not text:
        pytest.skip("strace may not trace here")
    assert r.returncode == 0, r.stderr
    assert str(ready.socket) in text  # the trace sees what the module does
    for word in ("AF_INET", "softhsm", str(ready.token.directory), str(ready.state), "libcurl"):
        assert word not in text, word
    assert text.count("execve(") == 1


# ---- p11-kit's configuration, and remoting ----


def test_p11_kit_finds_the_module_by_its_file(tool, ready, so, place):
    """hsmint.module as it is installed, with x-init-reserved for the socket; in a
    mount namespace of its own, for root's p11-kit reads the system's files."""
    need("p11-kit"), need("p11tool"), need("unshare")
    if loader(so):
        pytest.skip("p11-kit does not start with a sanitizer loaded before it")
    modules = subprocess.run(
        ["pkg-config", "--variable=p11_module_configs", "p11-kit-1"], capture_output=True, text=True
    ).stdout.strip()
    if not modules:
        pytest.skip("pkg-config does not tell where p11-kit's files are")
    source = (SOURCE / "module/pkcs11/hsmint.module.in").read_text()
    text = re.sub(r"(?m)^module:.*$", f"module: {so}", source)
    configured = place / "modules"
    configured.mkdir()
    (configured / "hsmint.module").write_text(text + f"x-init-reserved: socket={ready.socket}\n")
    # GnuTLS hands arguments of its own to C_Initialize: p11tool takes the
    # socket from the environment.
    script = (
        f"mount --bind {configured} {modules} && p11-kit list-modules &&"
        f" HSMINT_SOCKET={ready.socket} p11tool --batch --list-tokens"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HSMINT_SOCKET"}
    r = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    if r.returncode and re.search("unshare|mount|permission", r.stderr):
        pytest.skip("no mount namespace may be made here")
    assert r.returncode == 0, r.stderr
    with ready.attached() as c:
        serial = c.call("Slots")["slots"][0]["serial"]
    assert f"serial-number: {serial}" in r.stdout and f"serial={serial}" in r.stdout


def p11_kit_client():
    for folder in ("/usr/lib/x86_64-linux-gnu/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11"):
        path = os.path.join(folder, "p11-kit-client.so")
        if os.path.exists(path):
            return path
    pytest.skip("p11-kit-client.so is not installed")


def test_remoting(tool, ready, so, place, service):
    """What a container sees: p11-kit's client, its server beside the daemon."""
    client, address = p11_kit_client(), place / "remote"
    process = subprocess.Popen(
        [need("p11-kit"), "server", "-f", "-n", address, "--provider", so, "pkcs11:"],
        env=tool.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(address.exists, 10, "p11-kit server to listen")
        far = Tool(ready, client)
        far.environment = {**os.environ, "P11_KIT_SERVER_ADDRESS": f"unix:path={address}"}
        far.mint()
        assert service.alive() == 1
        assert "my-app" in far.run("-O").decode()
        far.run("--delete-object", "--type", "secrkey", "--label", "my-app")
        assert service.alive() == 0
    finally:
        process.terminate()
        process.wait(10)
