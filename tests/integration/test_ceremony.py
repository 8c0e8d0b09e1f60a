"""The transcript of a key ceremony: made by the keeper, signed by the HSM's log keys and by those who
were there with tools of their own, and verified with nothing of ours running."""

import base64
import concurrent.futures
import json
import os
import re
import signal
import subprocess

import pytest

import auditlog
from auditcli import Vkey, hsmint, independent
from conftest import Daemon, Token, program
from varlink import Error

ADA, GRACE, EDSGER, RENE, ALAN = "Ada Lovelace", "Grace Hopper", "Edsger W. Dijkstra", "René Descartes", "Alan Turing"


def cli(daemon, *words, **kw):
    return hsmint(*words, env={"HSMINT_SOCKET": str(daemon.socket)}, **kw)


def openssl(*words, stdin=None):
    r = subprocess.run(["openssl", *map(str, words)], input=stdin, capture_output=True)
    assert r.returncode == 0, r.stderr
    return r.stdout


def verdict(f, *words, status=0):
    v = json.loads(hsmint("ceremony", "verify", f, "--json", *words, status=status))
    assert v["verdict"] == ("faults" if status else "holds") and bool(v["faults"]) == bool(status), v
    return v


def signatures(f):
    """Participant's name → what the verdict says of their signature."""
    return {p["name"]: p["signature"] for p in verdict(f)["participants"]}


def vkeys(daemon):
    out = cli(daemon, "audit", "key")
    return [line.strip() for line in out.splitlines() if re.match(r"^\S+\+[0-9a-f]{8}\+\S+$", line.strip())]


def exported(daemon, copy):
    cli(daemon, "audit", "head", "--sign")
    cli(daemon, "audit", "export", copy)
    return copy


KINDS = {
    ADA: ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    GRACE: ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    EDSGER: ("genpkey", "-algorithm", "ED25519"),
    RENE: ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
}


class People:
    """Whose keys are files of theirs."""

    def __init__(self, place, *names):
        self.place, self.names = place, names
        for n in names:
            openssl(*KINDS[n], "-out", self.private(n))
            openssl("pkey", "-in", self.private(n), "-pubout", "-out", self.public(n))

    def private(self, name):
        return self.place / f"{name}.key"

    def public(self, name):
        return self.place / f"{name}.pem"

    def words(self):
        return [w for n in self.names for w in ("--participant", f"{n}, custodian={self.public(n)}")]

    def sign(self, name, statement):
        """With the commands of hsmint-ceremony(1)."""
        out = self.place / f"{name}.sig"
        (self.place / "statement").write_bytes(statement)
        if name == EDSGER:
            openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.private(name), "-in", self.place / "statement", "-out", out)
        elif name == GRACE:
            digest = ("-rawin", "-digest", "sha256")
            openssl("pkeyutl", "-sign", *digest, "-inkey", self.private(name), "-in", self.place / "statement", "-out", out)
        else:
            openssl("dgst", "-sha256", "-sign", self.private(name), "-out", out, self.place / "statement")
        return out


def statement(f):
    r = subprocess.run([program("hsmint"), "ceremony", "statement", f], capture_output=True)
    assert r.returncode == 0, r.stderr
    return r.stdout


def by_hand(f):
    """hsmint-ceremony(1), "WITHOUT HSMINT"."""
    r = subprocess.run(["sh", "-c", "sed '/^— /,$d' \"$1\" | head -n -1", "sh", f], capture_output=True)
    return r.stdout


# ---- init ----


def provisioned(daemon):
    with daemon.attached() as c:
        return bool(c.call("Status")["status"]["hsm"].get("keys"))


def test_no_keys_without_a_place_for_the_transcript(daemon, place):
    people = ("--participant", "Ada Lovelace, custodian")
    there = place / "there.txt"
    there.write_text("mine")
    (place / "a-directory").mkdir()
    (place / "link").symlink_to(place / "elsewhere")
    for path, status, text in (
        (place / "nowhere" / "t.txt", 1, "No such file"),
        (place / "a-directory", 1, "no regular file"),
        (place / "link", 1, "no regular file"),
        ("/proc/version", 1, "/proc/version"),
        (there, 1, "--force"),
    ):
        assert text in cli(daemon, "init", "--ceremony", path, *people, status=status), path
    assert there.read_text() == "mine" and not (place / "elsewhere").exists()
    new = place / "t.txt"
    for words, status in (
        (("--participant", "Ada"), 2),
        (("--participant", "A\x1b[31mda, custodian"), 1),
        (("--participant", "Ada, custodian=/nonexistent.pem"), 4),
        (("--attestation", "hsm"), 2),
        (("--attestation", "hsm=/nonexistent"), 4),
        (people + people, 1),
    ):
        cli(daemon, "init", "--ceremony", new, *words, status=status)
        assert not new.exists()
    cli(daemon, "init", *people, status=2)
    cli(daemon, "init", "--force", status=2)
    assert not provisioned(daemon)
    said = cli(daemon, "init", "--ceremony", new, *people)
    assert "is set up" in said and str(new) in said
    assert new.stat().st_mode & 0o777 == 0o644
    text = new.read_text()
    assert text.count("\nThe keeper saw it made: yes\n") == text.count("\nKey: ") == 5
    # It is kept, and a second one goes elsewhere or is asked for.
    assert "--force" in cli(daemon, "ceremony", new, status=1)
    assert new.read_text() == text
    told = json.loads(cli(daemon, "ceremony", new, "--force", "--json"))
    assert told["file"] == str(new) and new.read_text() != text and not list(place.glob("t.txt?*"))
    verdict(new, "--log", exported(daemon, place / "copy"), "--key", vkeys(daemon)[0])


def test_the_keeper_dies_and_init_tells_in_json(daemon, place):
    """What was made is told, and the rest is a command away."""
    f, g = place / "t.txt", place / "u.txt"
    told = json.loads(cli(daemon, "init", "--ceremony", f, "--json"))
    assert told["ceremony"]["file"] == str(f) and told["instance"] in f.read_text()
    os.kill(daemon.keeper(), signal.SIGKILL)
    cli(daemon, "ceremony", g)
    assert g.read_text().count("\nThe keeper saw it made: no\n") == 5
    # Both are of one log, which tells of each.
    copy = exported(daemon, place / "copy")
    first, second = verdict(f, "--log", copy), verdict(g, "--log", copy)
    assert first["signed_record"] < second["signed_record"] and not first["notices"] + second["notices"]


def test_no_transcript_without_a_daemon_or_keys(daemon, place):
    f = place / "t.txt"
    assert "init" in cli(daemon, "ceremony", f, status=1) and not f.exists()
    daemon.stop()
    hsmint("ceremony", f, env={"HSMINT_SOCKET": str(daemon.socket)}, status=5)
    assert not f.exists()


# ---- what it says ----


def test_it_says_what_the_hsm_says(ready, token, place):
    f = place / "t.txt"
    cli(ready, "ceremony", f, "--participant", "Ada Lovelace, Key custodian")
    t = json.loads(hsmint("ceremony", "show", f, "--json"))
    with ready.attached() as c:
        hsm = c.call("Status")["status"]["hsm"]
    assert t["instance"] == hsm["instance"] and t["version"] == "0.1.0" and t["asked_by"].startswith("user:")
    for name in ("manufacturer", "model", "serial", "label", "firmware"):
        assert t["hsm"][name] == hsm[name]
    digest = openssl("dgst", "-sha256", "-r", token.module).decode().split()[0]
    assert t["hsm"]["library_sha256"] == digest and t["hsm"]["slot_is_hardware"] is False
    assert {k["label"]: k["fingerprint"] for k in t["keys"]} == {k["label"]: k["fingerprint"] for k in hsm["keys"]}
    for k in t["keys"]:
        assert (k["local"], k["never_extractable"], k["always_sensitive"], k["extractable"]) == (True, True, True, False)
        assert k["state"] == "active" and k["present"] and "it " in k["proof"]
    assert any("CKM_AES_GCM" in m["name"] for m in t["mechanisms"])
    assert t["participants"] == [{"name": "Ada Lovelace", "role": "Key custodian", "public_key": None}]
    # The statement is what a signed note's text is, and what is printed to the byte.
    assert statement(f) == by_hand(f) == f.read_bytes()[: len(statement(f))]
    assert json.loads(hsmint("ceremony", "statement", f, "--json"))["statement"].encode() == statement(f)
    assert "Ada Lovelace" in hsmint("ceremony", "show", f)
    with ready.attached() as c:
        given, signed = [json.loads(line) for line in c.call("Records", kind="ceremony")["lines"]]
    assert given["seq"] == t["log"]["record"] <= t["log"]["size"] < signed["seq"]
    assert given["participants"] == [{"name": "Ada Lovelace", "role": "Key custodian", "key": None}]
    sha256 = openssl("dgst", "-sha256", "-binary", stdin=statement(f))
    assert base64.b64decode(signed["statement"]) == sha256
    v = verdict(f, "--log", exported(ready, place / "copy"), "--key", vkeys(ready)[1])
    assert v["signed_record"] == signed["seq"] and v["keys_given"] and not v["notices"]


def test_after_rotations(ready, place):
    first = vkeys(ready)
    for key in ("call", "log"):
        cli(ready, "hsm", "rotate", key)
    f, copy = place / "t.txt", place / "copy"
    cli(ready, "ceremony", f)
    keys = {k["label"]: k for k in json.loads(hsmint("ceremony", "show", f, "--json"))["keys"]}
    assert keys["hsmint-call-2"]["state"] == keys["hsmint-log-2"]["state"] == "active"
    assert keys["hsmint-call-1"]["state"] == "deactivated" and keys["hsmint-call-1"]["present"]
    assert keys["hsmint-log-1"]["state"] == "active, signs beside the next"
    assert keys["hsmint-call-2"]["witnessed"] and keys["hsmint-call-1"]["witnessed"]
    assert len(verdict(f)["log_keys"]) == 4
    states = {s["label"]: s["state"] for s in json.loads(hsmint("ceremony", "show", f, "--json"))["states"]}
    assert states["hsmint-call-1"] == "deactivated" and states["hsmint-call-2"] == states["hsmint-log-1"] == "active"
    exported(ready, copy)
    for vkey in (*first, *vkeys(ready)):
        verdict(f, "--key", vkey, "--log", copy)
    ready.stop()
    ready.start()
    cli(ready, "hsm", "destroy", "hsmint-call-1")
    cli(ready, "ceremony", f, "--force")
    keys = {k["label"]: k for k in json.loads(hsmint("ceremony", "show", f, "--json"))["keys"]}
    assert keys["hsmint-call-1"]["state"] == "destroyed" and not keys["hsmint-call-1"]["present"]
    assert keys["hsmint-call-1"]["local"] is None
    assert not any(k["witnessed"] for k in keys.values())
    verdict(f, "--key", first[0], "--log", exported(ready, copy))


# ---- those who were there ----


def test_participants_sign_with_tools_of_their_own(ready, place):
    people = People(place, *KINDS)
    f = place / "t.txt"
    cli(ready, "ceremony", f, *people.words(), "--participant", f"{ALAN}, guest")
    ready.stop()  # nothing of ours runs from here on
    before = f.read_bytes()
    assert set(signatures(f).values()) == {"not yet", "none"}
    for name in (RENE, ADA, EDSGER, GRACE):
        sig = people.sign(name, statement(f))
        for other in KINDS:
            if other != name:
                assert "no signature of this statement" in hsmint(
                    "ceremony", "sign", f, "--participant", other, "--signature", sig, status=1
                )
        hsmint("ceremony", "sign", f, "--participant", name, "--signature", sig)
        assert signatures(f)[name] == "good" and f.read_bytes().startswith(before)
        assert "already" in hsmint("ceremony", "sign", f, "--participant", name, "--signature", sig, status=1)
    assert signatures(f) == {**dict.fromkeys(KINDS, "good"), ALAN: "none"}
    assert statement(f) == by_hand(f)
    sig = people.sign(ADA, statement(f))
    assert "without a key" in hsmint("ceremony", "sign", f, "--participant", ALAN, "--signature", sig, status=1)
    hsmint("ceremony", "sign", f, "--participant", "Nobody", "--signature", sig, status=4)
    hsmint("ceremony", "sign", f, "--signature", sig, status=2)
    hsmint("ceremony", "sign", f, "--participant", ADA, "--signature", place / "nothing", status=4)
    (place / "huge").write_bytes(bytes(5000))
    hsmint("ceremony", "sign", f, "--participant", ADA, "--signature", place / "huge", status=1)
    # By hand: the signature behind the first four bytes of Ada's line.
    line = next(line for line in f.read_text().splitlines() if line.startswith("— participant/1 "))
    (place / "by-hand.sig").write_bytes(base64.b64decode(line.split()[2])[4:])
    openssl("dgst", "-sha256", "-verify", people.public(ADA), "-signature", place / "by-hand.sig", stdin=by_hand(f))


def test_other_verifiers_of_signed_notes(ready, place, independent):
    """The file as it is, with the participants' lines: the Go project's, and one from the format's text."""
    people = People(place, *KINDS)
    f, keys = place / "t.txt", vkeys(ready)
    cli(ready, "ceremony", f, *people.words())
    for name in KINDS:
        hsmint("ceremony", "sign", f, "--participant", name, "--signature", people.sign(name, statement(f)))
    assert auditlog.open_note(f.read_bytes(), keys).encode() == statement(f)
    assert independent("note", f, *map(Vkey, keys)) + b"\n" == statement(f)
    f.write_text(f.read_text().replace("Role: custodian", "Role: owner", 1))
    with pytest.raises(auditlog.Broken):
        auditlog.open_note(f.read_bytes(), keys)
    independent("note", f, *map(Vkey, keys), status=1)


def test_all_sign_at_once(ready, place):
    people = People(place, *KINDS)
    f = place / "t.txt"
    cli(ready, "ceremony", f, *people.words())
    f.chmod(0o640)
    sigs = {n: people.sign(n, statement(f)) for n in KINDS}
    with concurrent.futures.ThreadPoolExecutor(len(KINDS)) as pool:
        list(pool.map(lambda n: hsmint("ceremony", "sign", f, "--participant", n, "--signature", sigs[n]), KINDS))
    assert set(signatures(f).values()) == {"good"} and f.stat().st_mode & 0o777 == 0o640
    assert not [p for p in place.iterdir() if p.name.startswith(".t.txt")]


def test_a_smart_card_signs(ready, place):
    """pkcs11-tool on a token of the participant's own."""
    card = Token(place, label="card", pin="123456")
    env = {**os.environ, **card.environment}
    tool = ["pkcs11-tool", "--module", card.module, "--token-label", "card", "--login", "--pin", "123456"]

    def run(*words):
        r = subprocess.run([*map(str, (*tool, *words))], env=env, capture_output=True)
        assert r.returncode == 0, r.stderr

    run("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "ada")
    run("--keypairgen", "--key-type", "RSA:2048", "--id", "02", "--label", "grace")
    f, st = place / "t.txt", place / "statement"
    words = []
    for id, name in (("01", ADA), ("02", GRACE)):
        run("--read-object", "--type", "pubkey", "--id", id, "--output-file", place / f"{id}.der")
        openssl("pkey", "-pubin", "-inform", "DER", "-in", place / f"{id}.der", "-out", place / f"{id}.pem")
        words += ["--participant", f"{name}, custodian={place / id}.pem"]
    cli(ready, "ceremony", f, *words)
    st.write_bytes(statement(f))
    openssl("dgst", "-sha256", "-binary", "-out", place / "digest", st)
    run("--sign", "--id", "01", "--mechanism", "ECDSA", "--input-file", place / "digest", "--output-file", place / "01.sig")
    run("--sign", "--id", "02", "--mechanism", "SHA256-RSA-PKCS", "--input-file", st, "--output-file", place / "02.sig")
    for id, name in (("01", ADA), ("02", GRACE)):
        hsmint("ceremony", "sign", f, "--participant", name, "--signature", place / f"{id}.sig")
    assert signatures(f) == {ADA: "good", GRACE: "good"}


def test_what_is_no_public_key(ready, place):
    people = People(place, ADA)
    f = place / "t.txt"

    def refused(pem, text):
        said = cli(ready, "ceremony", f, "--participant", f"Ada, custodian={pem}", status=1)
        assert text in said and not f.exists(), said

    refused(people.private(ADA), "private key")
    (place / "weak.pem").write_bytes(openssl("pkey", "-pubout", stdin=openssl("genrsa", "1024")))
    refused(place / "weak.pem", "2048")
    (place / "garbage.pem").write_bytes(os.urandom(4096))
    refused(place / "garbage.pem", "BEGIN PUBLIC KEY")
    refused(place, "no regular file")
    # A certificate will do: smart cards have them.
    openssl("req", "-x509", "-new", "-key", people.private(ADA), "-subj", "/CN=Ada", "-out", place / "ada.crt")
    cli(ready, "ceremony", f, "--participant", f"{ADA}, custodian={place / 'ada.crt'}")
    hsmint("ceremony", "sign", f, "--participant", ADA, "--signature", people.sign(ADA, statement(f)))
    assert signatures(f) == {ADA: "good"}


# ---- attestations ----


def test_attestations(ready, place):
    f = place / "t.txt"
    openssl(*KINDS[ADA], "-out", place / "maker.key")
    openssl("req", "-x509", "-new", "-key", place / "maker.key", "-subj", "/CN=Maker's root", "-out", place / "maker.crt")
    cli(ready, "ceremony", f)
    spki = next(k for k in json.loads(hsmint("ceremony", "show", f, "--json"))["keys"] if k["label"] == "hsmint-log-1")
    (place / "log.der").write_bytes(base64.b64decode(spki["public_key"]))
    openssl("pkey", "-pubin", "-inform", "DER", "-in", place / "log.der", "-out", place / "log.pem")
    openssl("req", "-new", "-key", place / "maker.key", "-subj", "/CN=attested", "-out", place / "log.csr")
    openssl(
        *("x509", "-req", "-in", place / "log.csr", "-CA", place / "maker.crt", "-CAkey", place / "maker.key"),
        *("-force_pubkey", place / "log.pem", "-out", place / "log.crt"),
    )
    (place / "chain.pem").write_bytes((place / "maker.crt").read_bytes() + (place / "log.crt").read_bytes())
    (place / "vendor.bin").write_bytes(bytes(range(256)))
    cli(
        *(ready, "ceremony", f, "--force", "--attestation", f"hsmint-log-1={place / 'chain.pem'}"),
        *("--attestation", f"hsmint-call-1={place / 'log.crt'}", "--attestation", f"hsm={place / 'vendor.bin'}"),
        *("--attestation", f"hsmint-nothing-1={place / 'vendor.bin'}"),
    )
    v = verdict(f)
    log, call, hsm, _ = v["attestations"]
    assert log["about"] == "this key" and log["issuer"] == "CN=Maker's root" and log["certificates"] == 2
    assert call["about"] == "another key" and hsm["kind"] == "bytes" and hsm["about"] == "not known"
    assert [n.split(":")[0] for n in v["notices"]] == ["attestation of hsmint-call-1", "attestation of hsmint-nothing-1"]
    assert hsm["sha256"] == openssl("dgst", "-sha256", "-r", place / "vendor.bin").decode().split()[0]
    assert "CN=Maker's root" in hsmint("ceremony", "verify", f)


def test_bounds(ready, place):
    f, big = place / "t.txt", place / "big"
    big.write_bytes(os.urandom(65537))
    assert "65536" in cli(ready, "ceremony", f, "--attestation", f"hsm={big}", status=1)
    big.write_bytes(b"")
    assert "empty" in cli(ready, "ceremony", f, "--attestation", f"hsm={big}", status=1)
    big.write_bytes(os.urandom(65536))
    six = ["--attestation", f"hsm={big}"] * 6
    assert "393216" in cli(ready, "ceremony", f, *six, "--attestation", f"hsm={big}", status=1)
    people = [w for i in range(64) for w in ("--participant", f"person {i}, {'x' * 120}")]
    cli(ready, "ceremony", f, *six, *people)
    v = verdict(f)
    assert len(v["participants"]) == 64 and len(v["attestations"]) == 6
    cli(ready, "ceremony", f, "--force", *people, "--participant", "one more, guest", status=2)
    with ready.attached() as c:
        many = [{"name": f"p{i}", "role": "r"} for i in range(10000)]
        for people, more, error in (([], {"text": "x"}, "Invalid"), (many[:65], {}, "Invalid"), (many, {}, "Protocol")):
            with pytest.raises(Error) as e:
                c.call("Ceremony", fields={"participants": people, "attestations": [], **more})
            assert e.value.name == error, e.value
    assert len(verdict(f)["participants"]) == 64


# ---- what somebody makes of it ----


def test_somebody_edits_it(ready, place):
    people = People(place, ADA, EDSGER)
    f, bad = place / "t.txt", place / "bad.txt"
    cli(ready, "ceremony", f, *people.words())
    for name in (ADA, EDSGER):
        hsmint("ceremony", "sign", f, "--participant", name, "--signature", people.sign(name, statement(f)))
    text = f.read_text()
    one, two = (line for line in text.splitlines() if line.startswith("— participant/"))
    for was, is_ in (
        ("Participant: Ada Lovelace", "Participant: Eve Lovelace"),
        ("CKA_EXTRACTABLE: no", "CKA_EXTRACTABLE: yes"),
        ("Records: ", "Records: 1"),
        ("HSM model: ", "HSM model: \x1b]0;x\x07"),
        (one + "\n", ""),
        (one + "\n" + two, two + "\n" + one),
        (one.split()[2], two.split()[2]),
        ("\n\n— ", "\n\nAdded: later\n\n— "),
        ("hsmint ceremony transcript v1", "hsmint ceremony transcript v2"),
    ):
        assert was in text
        bad.write_text(text.replace(was, is_, 1))
        if is_:
            said = hsmint("ceremony", "verify", bad, status=1)
            assert "FAULT" in said and "\x1b" not in said, (was, said)
            verdict(bad, status=1)
        else:  # a signature can be taken away: spec/CEREMONY.md
            assert signatures(bad)[ADA] == "not yet"
    for garbage in (b"", b"\0" * 100, os.urandom(3000), b"\n\n\n", f.read_bytes()[:-1], b"x" * 800000):
        bad.write_bytes(garbage)
        hsmint("ceremony", "verify", bad, status=1)
        hsmint("ceremony", "show", bad, status=1)
    hsmint("ceremony", "verify", place / "none", status=4)
    # What does not hold is signed by nobody.
    bad.write_text(text.replace(one + "\n", "").replace("Eve", "Ada").replace("CKA_COPYABLE: yes", "CKA_COPYABLE: no", 1))
    hsmint("ceremony", "sign", bad, "--participant", ADA, "--signature", place / f"{ADA}.sig", status=1)


def test_another_instance(ready, service, place, tmp_path):
    f, other_place = place / "t.txt", place / "o"
    people = People(place, ADA)
    other_place.mkdir()
    other = Daemon(other_place, Token(other_place, label="other"), service)
    other.start()
    try:
        cli(other, "init")
        g = other_place / "t.txt"
        cli(other, "ceremony", g, *people.words())
        theirs = exported(other, other_place / "copy"), vkeys(other)[0]
    finally:
        other.end()
    cli(ready, "ceremony", f, *people.words())
    ours = exported(ready, place / "copy"), vkeys(ready)[0]
    verdict(f, "--log", ours[0], "--key", ours[1])
    verdict(f, "--key", theirs[1], status=1)
    verdict(f, "--log", theirs[0], status=1)
    verdict(g, "--log", ours[0], status=1)
    # Their checkpoint in our statement; Ada's signature of the one under the other.
    sig = people.sign(ADA, statement(g))
    hsmint("ceremony", "sign", f, "--participant", ADA, "--signature", sig, status=1)
    root = re.compile(r"^Root: .*$", re.M)
    (place / "mixed.txt").write_text(root.sub(root.search(g.read_text()).group(0), f.read_text()))
    verdict(place / "mixed.txt", status=1)
    # An older copy of the log, which ends before the ceremony.
    cli(ready, "ceremony", f, "--force")
    assert "missing" in json.dumps(verdict(f, "--log", ours[0], status=1))
