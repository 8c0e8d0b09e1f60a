"""The transcript of a key ceremony: made by the keeper, signed by the HSM's log keys and by those who
were there with tools of their own, and verified with nothing of ours running."""

import json

from auditcli import hsmint


def test_a_transcript(ready, place):
    f, env = place / "transcript.txt", {"HSMINT_SOCKET": str(ready.socket)}
    hsmint("ceremony", f, "--participant", "Ada Lovelace, Key custodian", env=env)
    assert "\nParticipant: Ada Lovelace\nRole: Key custodian\nPublic key: none\n" in f.read_text()
    hsmint("audit", "export", place / "copy", env=env)
    v = json.loads(hsmint("ceremony", "verify", f, "--log", place / "copy", "--json"))
    assert v["verdict"] == "holds" and v["signed_record"] and v["log"]["verdict"] == "holds"
