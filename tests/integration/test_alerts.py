"""contrib/prometheus and contrib/grafana: what they ask for is what a live daemon
tells, and each alert fires when it should (promtool)."""

import json
import re
import shutil
import subprocess

import pytest

from conftest import SOURCE, program

ALERTS = SOURCE / "contrib/prometheus/alerts.yml"
TESTS = SOURCE / "contrib/prometheus/alerts_test.yml"
DASHBOARD = SOURCE / "contrib/grafana/hsmint.json"


def promtool(*arguments, **options):
    path = shutil.which("promtool") or shutil.which(SOURCE / "build-aux/promtool")
    if not path:
        pytest.skip("there is no promtool (tools/deps test gets it)")
    return subprocess.run([path, *arguments], capture_output=True, text=True, **options)


def rules():
    """[(alert, its text)]"""
    parts = re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.M)[1:]
    return [tuple(p.split("\n", 1)) for p in parts]


def expressions():
    """All of the dashboard's, with its variables filled in."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("expr"), str):
                found.append(node["expr"])
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(json.loads(DASHBOARD.read_text()))
    return [e.replace("$__rate_interval", "5m").replace("$instance", ".*") for e in found]


@pytest.fixture
def live(ready):
    """Names of metrics, and of their samples, in a scrape of a live daemon."""
    r = subprocess.run([program("hsmint-exporter"), "--once", "--socket", ready.socket], capture_output=True, text=True)
    assert r.returncode == 0
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", r.stdout, re.M):
        names.update({name + s for s in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name})
    return names


def test_names_exist(live):
    for what in [text for _, text in rules()] + expressions() + [TESTS.read_text()]:
        for name in re.findall(r"\bhsmint_[a-z_]+\b", what):
            assert name in live, name


def test_manual_names_all(live):
    manual = (SOURCE / "man/hsmint-exporter.8").read_text()
    for name in live:
        assert re.sub(r"_(bucket|sum|count)$", "", name) in manual, name


def test_rules():
    r = promtool("check", "rules", ALERTS)
    assert r.returncode == 0 and f"SUCCESS: {len(rules())} rules" in r.stdout, r.stdout + r.stderr


def test_rules_fire():
    r = promtool("test", "rules", TESTS.name, cwd=TESTS.parent)
    assert r.returncode == 0, r.stdout + r.stderr
    tested = TESTS.read_text()
    for alert, _ in rules():
        assert f"name: {alert} quiet" in tested and f"name: {alert} fires" in tested, alert


def test_each_alert_can_be_looked_up():
    def explained(alarm):
        return subprocess.run([program("hsmint"), "explain", alarm], capture_output=True).returncode == 0

    assert explained("hsm-down") and not explained("no-such-alarm")
    for alert, text in rules():
        alarm = re.search(r"^ +alarm: \"?([^\"\n]+)", text, re.M)
        if not alarm:
            assert "runbook:" in text, alert
            continue
        ids = {alarm[1]}
        if "$labels" in alarm[1]:
            ids = {"expiry-ignored", "expiry-refused"} if "state" in alarm[1] else set()
        for one in ids:
            assert explained(one), one
        # Ids that an expression names, too: a wrong one would never match.
        for listed in re.findall(r'\bid(?:=|!~)"([a-z|-]+)"', text):
            for one in listed.split("|"):
                assert explained(one), one


def test_dashboard(tmp_path):
    exprs = expressions()
    assert len(exprs) > 30
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "d", "rules": [
        {"record": f"d:{i}", "expr": e} for i, e in enumerate(exprs)]}]}))
    r = promtool("check", "rules", file)
    assert r.returncode == 0 and f"SUCCESS: {len(exprs)} rules" in r.stdout, r.stdout + r.stderr
    file.write_text(file.read_text().replace("sum by", "summ by", 1))  # it would see a mistake
    assert promtool("check", "rules", file).returncode != 0
