"""Other versions of p11-kit, in roots of other Debian releases that somebody made:

    debootstrap --variant=minbase --include=p11-kit,p11-kit-modules,opensc,libjansson4 trixie ROOT
    HSMINT_P11KIT_ROOTS=ROOT:... make check TESTS=tests/integration/test_p11kit_versions.py

Each pair of server and client mints by C_CreateObject, lists, reads and revokes, and
mints by C_GenerateKey where both encode it alike."""

import os
import pathlib
import re
import subprocess

import pytest

from conftest import PIN, PROJECT, wait_for
from test_pkcs11 import leases, so  # noqa: F401 (a fixture)

ROOTS = ["/", *filter(None, os.environ.get("HSMINT_P11KIT_ROOTS", "").split(":"))]
CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
ROLE = "kept"
CHANGED = (0, 25, 6)  # how mechanisms without a parameter cross


def inside(root, *folders):
    """The words before a command that runs in `root` and sees our folders there."""
    if root == "/":
        return []
    mounts = " && ".join(f'mkdir -p "{root}{f}" && mount --bind "{f}" "{root}{f}"' for f in map(str, folders))
    return ["unshare", "-m", "sh", "-c", f'{mounts} && exec chroot "{root}" "$@"', "sh"]


def version(root):
    text = subprocess.run([*inside(root, "/proc"), "dpkg-query", "-W", "-f", "${Version}", "p11-kit"],
                          capture_output=True, text=True).stdout
    return tuple(int(n) for n in re.findall(r"\d+", text)[:3])


@pytest.mark.parametrize("client", ROOTS)
@pytest.mark.parametrize("server", ROOTS)
def test_pair(server, client, ready, service, place, so, capsys):  # noqa: F811
    if len(ROOTS) == 1:
        pytest.skip("no other version of p11-kit here: HSMINT_P11KIT_ROOTS names none")
    if os.geteuid() != 0:
        pytest.skip("only root can enter another root")
    with ready.attached() as c:
        c.change("SetRole", name=ROLE, fields={"project_id": PROJECT, "keep_value": True})
    address = place / "p11-kit"
    folders = [place, pathlib.Path(ready.socket).parent, pathlib.Path(so).parent]
    running = subprocess.Popen(
        [*inside(server, *folders), "p11-kit", "server", "-f", "-n", address, "--provider", so, "pkcs11:token=hsmint"],
        env={**os.environ, "HSMINT_SOCKET": str(ready.socket)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(address.exists, 10, "p11-kit server to listen")

        def tool(*words, status=0):
            r = subprocess.run(
                [*inside(client, *folders), "pkcs11-tool", "--module", CLIENT, "--login", "--pin", PIN, *words],
                env={**os.environ, "P11_KIT_SERVER_ADDRESS": f"unix:path={address}"}, capture_output=True, timeout=60,
            )
            assert r.returncode == status, (words, r)
            return r.stdout.decode(errors="replace")

        (place / "empty").write_bytes(b"\0")
        tool("--write-object", place / "empty", "--type", "secrkey", "--label", ROLE, "--extractable")
        assert service.alive() == 1 and ROLE in tool("-O", "--type", "secrkey")
        tool("--read-object", "--type", "secrkey", "--label", ROLE, "-o", place / "key")
        assert service.accepts((place / "key").read_text())
        tool("--delete-object", "--type", "secrkey", "--label", ROLE)
        assert service.alive() == 0
        alike = (version(server) >= CHANGED) == (version(client) >= CHANGED)
        tool("--keygen", "--key-type", "GENERIC:32", "--label", ROLE, "--extractable", status=0 if alike else 1)
        assert service.alive() == len(leases(ready)) == (1 if alike else 0)
    finally:
        running.terminate()
        running.wait(10)
    with capsys.disabled():
        shown = [".".join(map(str, version(root))) for root in (server, client)]
        print(f"# server {shown[0]}, client {shown[1]}: C_CreateObject mints, listed, read, revoked;"
              f" C_GenerateKey {'mints' if alike else 'is refused by p11-kit, nothing minted'}")
