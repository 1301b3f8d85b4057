"""`onhand inspect --here` and `--device`: what runs a bundle, for people and for programs."""

import json
from pathlib import Path

import pytest

from onhand.cli.main import main

TINY = str(Path(__file__).parents[1] / "data" / "tiny-bundle")
Capture = pytest.CaptureFixture[str]


def test_this_device_is_shown(capsys: Capture) -> None:
    """One table for each variant; the one that is taken has a star."""
    assert main(["inspect", TINY, "--here"]) == 0

    said = capsys.readouterr()
    assert "* onnx" in said.out
    assert said.out.count("this device") == 2
    assert "nothing was timed yet" in said.err


def test_another_device_is_foretold(capsys: Capture) -> None:
    """By its name; a program gets the same as an object."""
    assert main(["inspect", TINY, "--device", "raspberry-pi-5"]) == 0
    assert "raspberry-pi-5, foretold" in capsys.readouterr().out

    assert main(["inspect", TINY, "--device", "raspberry-pi-5", "--json"]) == 0

    table = json.loads(capsys.readouterr().out)
    assert table["int4"]["is_predicted"] is True
    assert [way["engine"] for way in table["int4"]["ways"] if way["is_chosen"]] == ["onnx"]


def test_one_device_at_a_time(capsys: Capture) -> None:
    """And one that is known."""
    assert main(["inspect", TINY, "--here", "--device", "raspberry-pi-5"]) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert main(["inspect", TINY, "--device", "raspberry-pi-55"]) == 2
    assert "raspberry-pi-5" in capsys.readouterr().err
