"""Run one pytest file and print TAP, for `make check`.

    python3 tap.py test_x.py [pytest's options]
"""

import sys

try:
    import pytest
except ImportError:
    print("1..0 # SKIP python3-pytest is not installed")
    sys.exit(0)


class Tap:
    def __init__(self):
        self.number = 0

    def pytest_addoption(self, parser):
        # The terminal's, which explains of failed assertions ask for.
        parser.addoption("--verbose", dest="verbose", type=int, default=0)

    def line(self, ok, name, directive=""):
        self.number += 1
        print(f"{'ok' if ok else 'not ok'} {self.number} - {name}{directive}", flush=True)

    def explain(self, text):
        for part in str(text).splitlines():
            print(f"# {part}", flush=True)

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::", 1)[-1].replace("#", "%")
        if report.failed:
            self.line(False, f"{name} ({report.when})" if report.when != "call" else name)
            self.explain(report.longreprtext)
            for title, content in report.sections:
                self.explain(f"--- {title}\n{content}")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.line(True, name, f" # SKIP {reason.removeprefix('Skipped: ')}")
        elif report.when == "call":
            self.line(True, name)
            if report.user_properties:
                self.explain("\n".join(text for _, text in report.user_properties))

    def pytest_collectreport(self, report):
        if report.failed:
            self.line(False, f"collect {report.nodeid}")
            self.explain(report.longreprtext)

    def pytest_sessionfinish(self):
        print(f"1..{self.number}", flush=True)


sys.exit(pytest.main(["-p", "no:terminal", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Tap()]))
