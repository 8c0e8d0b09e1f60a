"""The models of spec/models: spin proves their properties, finds the bug that each
stands beside, and their tables are those of the code."""

import re
import shutil
import subprocess

import pytest

from conftest import SOURCE

MODELS = SOURCE / "spec" / "models"


def pan(place, model, *defines):
    """The verifier of a model, as a function of its property: (errors, what it said)."""
    for tool in ("spin", "gcc"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    subprocess.run(["spin", *defines, "-a", MODELS / model], cwd=place, check=True, stdout=subprocess.DEVNULL)
    # -DNFAIR: a bit for each process and one more, for weak fairness.
    subprocess.run(["gcc", "-O1", "-w", "-DNFAIR=3", "-DCOLLAPSE", "-o", "pan", "pan.c"], cwd=place, check=True)

    def verify(claim):
        r = subprocess.run(
            ["./pan", "-a", "-f", "-m1000000", "-N", claim], cwd=place, capture_output=True, text=True, timeout=300
        )
        found = re.search(r"errors: (\d+)", r.stdout)
        assert found and "error: max search depth" not in r.stdout, r.stdout + r.stderr
        return int(found[1]), r.stdout

    return verify


def test_leases(place):
    """With the journal: no unknown account for ever, no key past its end for ever, and no
    key is deleted that its caller relies on (an assertion of the model)."""
    verify = pan(place, "lease.pml")
    for claim in ("no_unknown_account", "no_key_past_its_end"):
        errors, said = verify(claim)
        assert errors == 0, said
        print(f"# {claim}: {re.search(r'([0-9.e+]+) states, stored', said)[1]} states, no error")


def test_without_the_journal_there_is_an_orphan(place):
    errors, said = pan(place, "lease-no-journal.pml")("no_unknown_account")
    assert errors == 1 and "acceptance cycle" in said, said


def test_reconcile_needs_the_journal(place):
    """It would take a mint that is under way for a stranger."""
    errors, said = pan(place, "lease-no-journal.pml", "-DWITH_RECONCILE")("no_unknown_account")
    assert errors == 1 and "assertion violated" in said, said


def rows_of_model():
    """(state, event, next) of step(), without the bug's."""
    text = re.sub(r"#ifdef NO_JOURNAL.*?#endif", "", (MODELS / "lease.pml").read_text(), flags=re.S)
    row = r":: row == (\w+)\s*&& event == (\w+)\s*-> row = (\w+)"
    return re.findall(row, text[text.index("inline step") :])


def rows_of_code():
    """The same of the code's table."""
    text = (SOURCE / "module" / "core" / "lease_table.c").read_text()
    return re.findall(r"\{LEASE_(\w+), LEASE_(\w+), LEASE_\w+, LEASE_(\w+)\},", text)


def test_the_model_has_the_table_of_the_code():
    assert len(rows_of_model()) > 10
    assert sorted(rows_of_model()) == sorted(rows_of_code())


# ---- rotation ----

# What goes wrong, in models small enough for a minute: each is gone through whole.
TROUBLES = {
    "killed, answers lost": ("-DCRASHES=1", "-DLOST_CREATES=1"),
    "served twice, or long after": ("-DDOUBLES=1", "-DLOST_CREATES=1", "-DBEGINS=1"),
    "useless keys, deletes lost, killed": ("-DDUDS=1", "-DLOST_DELETES=1", "-DCRASHES=1"),
    "a person gives a key, calls in flight": ("-DBY_HAND=1", "-DCALLS=1"),
    "a person gives a key, killed": ("-DBY_HAND=1", "-DCRASHES=1"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_rotation(trouble, place, record_property):
    """A key that works is always there, and in the end none of ours but it."""
    verify = pan(place, "rotate.pml", *TROUBLES[trouble])
    for claim in ("a_key_works", "none_left"):
        errors, said = verify(claim)
        assert errors == 0, said
        record_property("states", f"{trouble}: {claim}: {re.search(r'([0-9.e+]+) states, stored', said)[1]} states, no error")


def test_rotation_needs_the_lock_and_the_overlap(place):
    """Two daemons on one store; an old key that goes at once."""
    errors, said = pan(place, "rotate.pml", "-DNO_LOCK")("none_left")
    assert errors == 1, said
    errors, said = pan(place, "rotate.pml", "-DCALLS=1", "-DNO_OVERLAP")("a_key_works")
    assert errors == 1 and "assertion violated opens[using]" in said, said


# The faults of the plugin's order: what goes wrong, and what spin finds.
PLUGIN = {
    "a create that timed out leaves an orphan": ("LOST_CREATES", "none_left", "acceptance cycle"),
    "a new key that does not work is left behind": ("DUDS", "none_left", "acceptance cycle"),
    "killed between create and save, the key's value is lost": ("CRASHES", "none_left", "acceptance cycle"),
    "a delete that failed, and the old key is forgotten": ("LOST_DELETES", "none_left", "acceptance cycle"),
    "two at once, and a key is forgotten": ("TWO", "none_left", "acceptance cycle"),
    "the old key dies under calls in flight": ("CALLS", "a_key_works", "assertion violated opens[using]"),
}


@pytest.mark.parametrize("fault", PLUGIN)
def test_the_plugins_order_of_rotation(fault, place):
    trouble, claim, found = PLUGIN[fault]
    errors, said = pan(place, "rotate-plugin.pml", f"-D{trouble}=1")(claim)
    assert errors == 1 and found in said, said


def test_the_plugins_order_is_good_while_nothing_goes_wrong(place):
    """So each of the faults is found for its own reason."""
    verify = pan(place, "rotate-plugin.pml")
    for claim in ("a_key_works", "none_left"):
        errors, said = verify(claim)
        assert errors == 0, said


def rows_of_table(name, prefix):
    """(state, event, next) of core/NAME.c's table, whose columns are the header's events."""
    core = SOURCE / "module" / "core"
    events = re.search(rf"enum {name}_event \{{(.*?)\}};", re.sub(r"/\*.*?\*/", "", (core / f"{name}.h").read_text(), flags=re.S), re.S)
    events = re.findall(rf"{prefix}_(\w+),", events[1])
    table = re.search(r"table\[[^=]*= \{(.*?)\n\};", (core / f"{name}.c").read_text(), re.S)[1]
    for state, row in re.findall(rf"\[{prefix}_(\w+)\] = \{{(.*?)\}}", table, re.S):
        cells = [c.strip().removeprefix(prefix + "_") for c in row.split(",")]
        assert len(cells) == len([e for e in events if e != "EVENTS"]), row
        yield from ((state, event, to) for event, to in zip(events, cells) if to != "NONE")


def test_the_rotations_model_has_the_table_of_the_code():
    text = (MODELS / "rotate.pml").read_text()
    model = re.findall(r":: document == (\w+)\s*&& event == (\w+)\s*-> document = (\w+)", text)
    assert len(model) > 10 and sorted(model) == sorted(rows_of_table("rotation", "ROTATION"))


# ---- rotation of the HSM's keys ----

KINDS = ["CALL", "LOG", "SEAL"]
WORST = ("-DCRASHES=2", "-DLOST=1", "-DPOWER=1", "-DDESTROYS=2")


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_of_a_key_of_the_hsms(kind, place, record_property):
    """Everything sealed opens, every signature's key is in the log, the log's chain is whole;
    in the end there is no key of ours but pinned ones, and no rotation is under way."""
    verify = pan(place, "hsm-rotate.pml", f"-DKIND={kind}", *WORST)
    for claim in ("all_opens", "only_pinned", "it_ends"):
        errors, said = verify(claim)
        assert errors == 0, said
        record_property("states", f"{kind}: {claim}: {re.search(r'([0-9.e+]+) states, stored', said)[1]} states, no error")


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_of_a_key_of_the_hsms_is_let_go(kind, place, record_property):
    """Whatever it was at. (Killed between the pins of before and the end of the new key, it
    leaves that on the HSM, unpinned: an administrator was told its name.)"""
    verify = pan(place, "hsm-rotate.pml", f"-DKIND={kind}", "-DABANDONS=1", "-DLOST=2", "-DCRASHES=1", "-DDESTROYS=1")
    for claim in ("all_opens", "it_ends"):
        errors, said = verify(claim)
        assert errors == 0, said
        record_property("states", f"{kind}: {claim}: {re.search(r'([0-9.e+]+) states, stored', said)[1]} states, no error")
    errors, said = pan(place, "hsm-rotate.pml", f"-DKIND={kind}", "-DABANDONS=1", "-DLOST=2", "-DDESTROYS=1")("only_pinned")
    assert errors == 0, said


# What is taken away, and what spin finds then.
NEEDED = {
    "a sync: the power takes the new key": ("CALL", "-DNO_SYNC -DPOWER=1", "all_opens"),
    "a sync: the power takes the key that sealed everything": ("SEAL", "-DNO_SYNC -DPOWER=1", "all_opens"),
    "certainty that nothing is left of a refusal": ("CALL", "-DNO_CLEAR -DLOST=1", "only_pinned"),
    "to wait for what is being sealed": ("SEAL", "-DNO_WAIT -DDESTROYS=1 -DCRASHES=1", "all_opens"),
    "the anchor, signed by the new key": ("LOG", "-DNO_ANCHOR -DLOST=1", "all_opens"),
    "to pause while the pins of before are put back": ("SEAL", "-DNO_PAUSE -DLOST=1 -DABANDONS=1", "all_opens"),
    "the lock of the store": ("CALL", "-DNO_LOCK", "all_opens"),
}


@pytest.mark.parametrize("what", NEEDED)
def test_rotation_of_a_key_of_the_hsms_needs(what, place):
    kind, defines, claim = NEEDED[what]
    errors, said = pan(place, "hsm-rotate.pml", f"-DKIND={kind}", *defines.split())(claim)
    assert errors == 1, said


NAIVE = {
    "pinned before all is sealed anew, nothing opens": ("SEAL", "-DPINS_FIRST=1", "all_opens", "assertion violated"),
    "destroyed at once, what is being sealed is lost": ("SEAL", "-DMINTS=1", "all_opens", "assertion violated"),
    "killed between make and pin, a key is left": ("CALL", "-DCRASHES=1", "only_pinned", "acceptance cycle"),
    "a call is signed by a key that the log does not name": ("CALL", "-DUNRECORDED=1 -DMINTS=1", "all_opens", "recorded"),
    "nobody is led to the log's new key": ("LOG", "-DALONE=1", "only_pinned", "introduced"),
}


@pytest.mark.parametrize("fault", NAIVE)
def test_a_naive_rotation_of_a_key_of_the_hsms(fault, place):
    kind, defines, claim, found = NAIVE[fault]
    errors, said = pan(place, "hsm-rotate-naive.pml", f"-DKIND={kind}", *defines.split())(claim)
    assert errors == 1 and found in said, said


@pytest.mark.parametrize("kind", KINDS)
def test_a_naive_rotation_is_good_while_nothing_goes_wrong(kind, place):
    verify = pan(place, "hsm-rotate-naive.pml", f"-DKIND={kind}")
    for claim in ("all_opens", "only_pinned"):
        errors, said = verify(claim)
        assert errors == 0, said


def test_the_model_of_the_hsms_keys_has_the_table_of_the_code():
    text = (MODELS / "hsm-rotate.pml").read_text()
    model = re.findall(r":: row == (\w+)\s*&& event == (\w+)\s*-> row = (\w+)", text)
    assert len(model) > 10 and sorted(model) == sorted(rows_of_table("keyrotation", "KEYROTATION"))
