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
