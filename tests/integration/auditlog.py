"""An audit log that is made up, and a second reader of the formats.

Written from the formats' texts (RFC 6962, c2sp.org/signed-note, tlog-checkpoint,
tlog-tiles, tlog-proof, RFC 9421, RFC 9530) and the `cryptography` package: none of
hsmint's code. `verify` says whether a copy holds; it raises Broken if not.
"""

import base64
import datetime
import hashlib
import ipaddress
import json
import pathlib

import pytest

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
except ImportError:
    pytest.skip("python3-cryptography is not installed", allow_module_level=True)

ORIGIN = "hsmint/test"
KEYID = "hsmint-call-1:0011223344556677"
BEGIN_MS = 1763712000000  # 2025-11-21T08:00:00Z


def b64(data):
    return base64.b64encode(data).decode()


def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(n):
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)


def root(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(root(leaves[:k]), root(leaves[k:]))


def inclusion(leaves, index):
    """RFC 6962 2.1.1: from the leaf's sibling up."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return inclusion(leaves[:k], index) + [root(leaves[k:])]
    return inclusion(leaves[k:], index - k) + [root(leaves[:k])]


def root_of_inclusion(leaf, index, size, path):
    """The root that a proof leads to."""
    if size == 1:
        if path:
            raise Broken("the proof is too long")
        return leaf
    if not path:
        raise Broken("the proof is too short")
    k = split(size)
    if index < k:
        return node_hash(root_of_inclusion(leaf, index, k, path[:-1]), path[-1])
    return node_hash(path[-1], root_of_inclusion(leaf, index - k, size - k, path[:-1]))


def consistency(leaves, old):
    """RFC 6962 2.1.2."""

    def sub(m, d, whole):
        if m == len(d):
            return [] if whole else [root(d)]
        k = split(len(d))
        if m <= k:
            return sub(m, d[:k], whole) + [root(d[k:])]
        return sub(m - k, d[k:], False) + [root(d[:k])]

    return sub(old, leaves, True) if 0 < old < len(leaves) else []


# ---- keys and notes ----


class EcdsaKey:
    kind = 2

    def __init__(self, name):
        self.name, self.key = name, ec.generate_private_key(ec.SECP256R1())
        self.public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.id = hashlib.sha256(self.public).digest()[:4]

    def sign(self, text):
        return self.key.sign(text, ec.ECDSA(hashes.SHA256()))

    @property
    def vkey(self):
        return f"{self.name}+{self.id.hex()}+{b64(bytes([self.kind]) + self.public)}"


class Ed25519Key(EcdsaKey):
    kind = 1

    def __init__(self, name):
        self.name, self.key = name, ed25519.Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.id = hashlib.sha256(name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def sign(self, text):
        return self.key.sign(text)


class WitnessKey(Ed25519Key):
    kind = 4
    time = 1763712345

    def sign(self, text):
        return self.time.to_bytes(8, "big") + self.key.sign(b"cosignature/v1\ntime %d\n" % self.time + text)


def signature_line(key, text):
    return f"\u2014 {key.name} {b64(key.id + key.sign(text.encode()))}\n"


def note(text, *keys):
    return text + "\n" + "".join(signature_line(k, text) for k in keys)


def checkpoint_text(origin, leaves, extension=""):
    return f"{origin}\n{len(leaves)}\n{b64(root(leaves))}\n{extension}"


# ---- tiles ----


def tile_name(level, index, width=256):
    parts = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03}")
    return f"tile/{level}/" + "/".join(parts) + (f".p/{width}" if width < 256 else "")


def tiles(lines, leaves):
    """{name: bytes} of a log of these records."""
    out = {}
    for level, row in enumerate(rows(leaves)):
        for i in range(0, len(row), 256):
            part = row[i : i + 256]
            out[tile_name(level, i // 256, len(part))] = b"".join(part)
    for i in range(0, len(lines), 256):
        part = lines[i : i + 256]
        out[tile_name("entries", i // 256, len(part))] = entries(part)
    return out


def entries(lines):
    return b"".join(len(x).to_bytes(2, "big") + x for x in lines)


def rows(leaves):
    row = leaves
    while row:
        yield row
        row = [root(row[i : i + 256]) for i in range(0, len(row) - 255, 256)]


# ---- a log ----


class Log:
    """Records as the daemon writes them; `lines` may be changed before a copy is written."""

    def __init__(self, origin=ORIGIN):
        self.origin, self.lines = origin, []
        self.call_key = ec.generate_private_key(ec.SECP256R1())
        self.keys = [EcdsaKey(origin), Ed25519Key(origin)]
        self.ms = BEGIN_MS
        self.add("start", version="test", mode="system", instance="test", origin=origin)
        self.add_keys()

    def add_keys(self):
        public = self.call_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.add("keys", log=[k.vkey for k in self.keys], call=[{"keyid": KEYID, "public_key": b64(public)}])

    def add(self, kind, actor=None, org=None, role=None, lease=None, at_ms=None, **own):
        self.ms = self.ms + 1000 if at_ms is None else at_ms
        prev = leaf_hash(self.lines[-1]) if self.lines else bytes(32)
        record = {
            "v": 2,
            "seq": len(self.lines) + 1,
            "prev": b64(prev),
            "time": time_text(self.ms),
            "sync": True,
            "kind": kind,
            "actor": actor or {"owner": "hsmintd"},
            **{k: v for k, v in (("org", org), ("role", role), ("lease", lease)) if v},
            **own,
        }
        self.lines.append(json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode())
        return len(self.lines)

    def call(self, id, method="POST", path="/v1/organization/projects/p/service_accounts", body='{"name":"n"}', **more):
        uri, created = "https://api.openai.com" + path, self.ms // 1000
        digest = f"sha-256=:{b64(hashlib.sha256(body.encode()).digest())}:"
        params = (
            f'("@method" "@target-uri" "content-digest");created={created};nonce="{id}";'
            f'keyid="{KEYID}";alg="ecdsa-p256-sha256";tag="hsmint"'
        )
        base = f'"@method": {method}\n"@target-uri": {uri}\n"content-digest": {digest}\n"@signature-params": {params}'
        r, s = utils.decode_dss_signature(self.call_key.sign(base.encode(), ec.ECDSA(hashes.SHA256())))
        signed = {
            "target_uri": uri,
            "content_digest": digest,
            "signature_input": "sig1=" + params,
            "signature": f"sig1=:{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}:",
            "keyid": KEYID,
            "nonce": id,
            "created": created,
        }
        return self.add("call", call=id, purpose="mint", method=method, body=body, signed=signed, **more)

    def outcome(self, id, fate="answered", status=200, **more):
        return self.add("outcome", call=id, fate=fate, status=status, service_request_id=f"req_{id}", **more)

    @property
    def leaves(self):
        return [leaf_hash(x) for x in self.lines]

    def checkpoint(self, size=None, keys=None, origin=None):
        return note(checkpoint_text(origin or self.origin, self.leaves[:size]), *(self.keys if keys is None else keys))

    def proof(self, seq):
        path = "".join(b64(h) + "\n" for h in inclusion(self.leaves, seq - 1))
        extra = b64(self.lines[seq - 1])
        return f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex {seq - 1}\n{path}\n{self.checkpoint()}"

    def write_lines(self, path, checkpoint=None):
        text = self.checkpoint() if checkpoint is None else checkpoint
        path.write_bytes(b"".join(x + b"\n" for x in self.lines) + b"\n" + text.encode())
        return path

    def write_tiles(self, directory, checkpoint=None):
        for name, data in tiles(self.lines, self.leaves).items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        (directory / "checkpoint").write_text(self.checkpoint() if checkpoint is None else checkpoint)
        return directory


def certificate(address):
    """A key and a certificate of its own, for a server at this address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + made.public_bytes(pem)


def time_ms(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def time_text(ms):
    at = datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03}Z"


# ---- the second reader ----


class Broken(Exception):
    pass


def open_note(bytes, vkeys):
    """(text, {names that have signed}) with a good signature of each of the keys."""
    text, _, signatures = bytes.decode().rpartition("\n\n")
    text += "\n"
    good = set()
    known = [parse_vkey(v) for v in vkeys]
    for line in signatures.splitlines():
        dash, name, data = line.split(" ")
        data = base64.b64decode(data, validate=True)
        for k_name, k_id, kind, public in known:
            if dash != "\u2014" or (name, data[:4]) != (k_name, k_id):
                continue
            check_signature(kind, public, data[4:], text.encode())
            good.add((k_name, kind))
    for k_name, _, kind, _ in known:
        if (k_name, kind) not in good:
            raise Broken(f"{k_name} has not signed with its key of type {kind}")
    return text


def parse_vkey(vkey):
    name, id, key = vkey.split("+", 2)
    key = base64.b64decode(key, validate=True)
    kind, public = key[0], key[1:]
    expect = hashlib.sha256(public if kind == 2 else name.encode() + b"\n" + key).digest()[:4]
    if bytes.fromhex(id) != expect:
        raise Broken("the key's id is not that of the key")
    return name, expect, kind, public


def check_signature(kind, public, signature, text):
    try:
        if kind == 2:
            serialization.load_der_public_key(public).verify(signature, text, ec.ECDSA(hashes.SHA256()))
        elif kind == 1:
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
        else:
            seconds = int.from_bytes(signature[:8], "big")
            message = b"cosignature/v1\ntime %d\n" % seconds + text
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature[8:], message)
    except InvalidSignature:
        raise Broken("a bad signature") from None


def read_checkpoint(bytes, vkeys):
    origin, size, hash = open_note(bytes, vkeys).splitlines()[:3]
    return origin, int(size), base64.b64decode(hash, validate=True)


def verify(directory, vkeys):
    """The records of a copy in tiles, all of it checked."""
    directory = pathlib.Path(directory)
    origin, size, expected = read_checkpoint((directory / "checkpoint").read_bytes(), vkeys)
    lines = []
    for i in range(0, size, 256):
        data = (directory / tile_name("entries", i // 256, min(256, size - i))).read_bytes()
        while data:
            n = int.from_bytes(data[:2], "big")
            lines.append(data[2 : 2 + n])
            data = data[2 + n :]
    leaves = [leaf_hash(x) for x in lines]
    if len(lines) != size or root(leaves) != expected:
        raise Broken("the records are not those of the checkpoint")
    for name, data in tiles(lines, leaves).items():
        if (directory / name).read_bytes() != data:
            raise Broken(name)
    return origin, lines


def verify_proof(bytes, vkeys):
    """The record's line, of a proof that holds."""
    head, _, checkpoint = bytes.partition(b"\n\n")
    first, *rest = head.decode().splitlines()
    if first != "c2sp.org/tlog-proof@v1" or not rest[0].startswith("extra ") or not rest[1].startswith("index "):
        raise Broken("not a proof with its record")
    line, index = base64.b64decode(rest[0][6:], validate=True), int(rest[1][6:])
    _, size, expected = read_checkpoint(checkpoint, vkeys)
    path = [base64.b64decode(x, validate=True) for x in rest[2:]]
    if index >= size or root_of_inclusion(leaf_hash(line), index, size, path) != expected:
        raise Broken("the proof leads to another root")
    return line
