"""What a device installs is named by hash, and the bill of materials says the same."""

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def _locked() -> dict[str, str]:
    lines = (ROOT / "locks" / "device.txt").read_text().splitlines()
    named = [line.removesuffix(" \\") for line in lines if "==" in line]
    return dict(line.split("==") for line in named)


def test_every_dependency_of_a_device_is_locked() -> None:
    """None can be added without its hashes."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {_name(re.split(r"[><=\[; ]", one)[0]) for one in given}
    assert names <= _locked().keys()


def test_locked_versions_are_those_that_the_checks_run_with() -> None:
    """The two files pin the same."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {_name(name): version for name, version in pins.items()}
    assert {name: pinned.get(name) for name in _locked()} == _locked()


def test_every_locked_version_has_hashes() -> None:
    """Each is a SHA-256."""
    text = (ROOT / "locks" / "device.txt").read_text()
    blocks = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(_locked())
    for block in blocks:
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}(?= |$)", block, re.MULTILINE)


def test_the_bill_of_materials_lists_what_is_locked() -> None:
    """No more, no less."""
    bill = json.loads((ROOT / "locks" / "sbom.json").read_text())
    assert {one["name"]: one["version"] for one in bill["components"]} == _locked()
    assert all(one["licenses"] for one in bill["components"])
