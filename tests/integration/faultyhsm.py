"""An HSM of which one call goes wrong: tests/integration/faultyhsm.c between the keeper
and SoftHSM. And what is on the token, against the pins."""

import collections
import json
import mmap
import os
import re
import sqlite3
import struct
import subprocess

from conftest import program

PAGE = 16 * 4096
FIELDS = "armed nth how rv only met seen calls".split()
HOWS = ["-", "fails", "fails after", "session lost", "stuck", "dies", "dies after"]
FUNCTIONS = (
    "- OpenSession Login FindObjectsInit FindObjects FindObjectsFinal GetAttributeValue CreateObject"
    " DestroyObject GenerateKey GenerateKeyPair SignInit Sign EncryptInit Encrypt DecryptInit Decrypt"
).split()
CKR = {"GENERAL_ERROR": 0x05, "DEVICE_ERROR": 0x30, "DEVICE_MEMORY": 0x31, "SESSION_HANDLE_INVALID": 0xB3}


class HsmFaults:
    """The page that the module shares with us; `daemon` is not started yet."""

    def __init__(self, daemon):
        path = daemon.place / "hsm-faults"
        path.write_bytes(bytes(PAGE))
        path.chmod(0o600)
        with open(path, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), PAGE)
        daemon.settings["hsm"]["module"] = program("tests", "integration", ".libs", "faultyhsm.so")
        daemon.settings["hsm.env"] |= {"HSM_BEHIND": daemon.token.module, "HSM_FAULTS": path}

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into("=i", self.page, 4 * FIELDS.index(name), value)

    def get(self, name):
        return struct.unpack_from("=i", self.page, 4 * FIELDS.index(name))[0]

    def arm(self, nth=0, how="-", rv="GENERAL_ERROR", only="-"):
        """The nth call from now on (of a function) goes wrong; without nth all are noted."""
        self.set(armed=0)
        self.set(nth=nth, how=HOWS.index(how), rv=CKR[rv], only=FUNCTIONS.index(only), met=0, seen=0, calls=0)
        self.set(armed=1)

    def disarm(self):
        """Whether it came to that call."""
        self.set(armed=0)
        return bool(self.get("met"))

    def noted(self):
        """The functions that were called since arm(), in their order."""
        n = min(self.get("calls"), PAGE // 4 - len(FIELDS))
        return [FUNCTIONS[i] for i in struct.unpack_from(f"={n}i", self.page, 4 * len(FIELDS))]


def objects(token):
    """(kind, label, CKA_ID) → how many, of what is called ours on the token. Not through
    the module that fails."""
    r = subprocess.run(
        ["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin, "-O"],
        env={**os.environ, **token.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = collections.Counter()
    for block in re.split(r"\n(?=\S)", r.stdout):
        label = re.search(r"^ +label: +(\S+)", block, re.M)
        if label and label[1].strip("'").startswith("hsmint-"):
            id = re.search(r"^ +ID: +([0-9a-f]+)", block, re.M)
            found[block.split(" ")[0].lower(), label[1].strip("'"), id[1] if id else None] += 1
    return found


def pins(daemon):
    """As the store has them."""
    with sqlite3.connect(f"file:{daemon.state / 'store.db'}?mode=ro", uri=True) as db:
        return json.loads(db.execute("SELECT value FROM meta WHERE key = 'hsm.pins'").fetchone()[0])


def check_objects(daemon):
    """Each pinned key is on the token, once, and nothing else of ours but data."""
    known = pins(daemon)
    keys = known["keys"] + [old["key"] for old in known.get("old", []) if old["role"] != "destroyed"]
    wanted = collections.Counter()
    for k in keys:
        wanted["private" if k["public_key"] else "secret", k["label"], k["id"]] += 1
        if k["public_key"]:
            wanted["public", k["label"], k["id"]] += 1
    there = collections.Counter({o: n for o, n in objects(daemon.token).items() if o[0] != "data"})
    assert there == wanted, f"not pinned: {there - wanted}; not there: {wanted - there}"
