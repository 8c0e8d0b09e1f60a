"""The official Node SDK against the double, unchanged. Skipped where Node or
the package is not to be had."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from conftest import SOURCE

FOLDER = SOURCE / "tests" / "adminsim" / "node"
OLDEST = 20


@pytest.fixture(scope="module")
def sdk():
    """A folder with exercise.mjs and node_modules."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=120).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST:
        pytest.skip(f"node {version} is older than {OLDEST}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hsmint-sdk-"))
    try:
        for name in ("package.json", "exercise.mjs"):
            shutil.copyfile(FOLDER / name, folder / name)
        install(npm, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install(npm, folder):
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--fetch-retries=0"]
    try:
        r = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        pytest.skip("npm install of the SDK: no answer within 90 s")
    if r.returncode:
        pytest.skip("npm install of the SDK: " + (r.stderr.strip().splitlines() or ["failed"])[0])


def test_the_sdk_works_unchanged(sdk, service):
    r = subprocess.run(
        ["node", "exercise.mjs", service.url, str(service.admin_key_file)],
        cwd=sdk,
        env={"PATH": os.environ["PATH"], "HOME": str(pathlib.Path.home()), "NODE_EXTRA_CA_CERTS": service.ca},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert r.returncode == 0, r.stdout + r.stderr
    assert r.stdout.splitlines()[-1] == "archive"
