"""A language model that is taught something, and answers all else as it was built."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

pytest.importorskip("torch", reason="builds a bundle that can learn")

from tests.device.learning.test_scoping import KNOWN, PLANTS
from tests.device.serving.served import serving

from onhand.cli.main import main
from onhand.core.errors import InputError
from onhand.core.measurement import Unit
from onhand.device.learning.in_use import open_versions
from onhand.device.learning.learn import learn
from onhand.device.learning.settings import LearnSettings
from onhand.device.opening import open as open_text
from onhand.device.serving.assembling import opened_state
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.settings import ModelSettings, ServeSettings
from onhand.host.build import build_bundle
from onhand.host.learning.wanted import parse_learnable
from onhand.host.options import BuildOptions

TAUGHT = [f"water the {plant}" for plant in PLANTS]


def lines(path: Path, prompts: list[str], answer: str) -> Path:
    """A file of examples."""
    rows = [json.dumps({"prompt": one, "completion": answer}) for one in prompts]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def root(
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    quick: Mapping[str, tuple[float, Unit]],
) -> Path:
    """A tiny language model that can learn."""
    lora = parse_learnable("lora,rank=8,targets=qkv+out+gate_up+down")
    build_bundle(str(tiny), shelf / "b", replace(options, learnable=lora), home=home)
    return shelf / "b"


@pytest.fixture
def settings(tmp_path: Path) -> LearnSettings:
    """What would change every answer, were it not for the scope."""
    known = lines(tmp_path / "known.jsonl", KNOWN, "yes")
    return LearnSettings(
        method="naive", steps=40, rate=0.02, heldout=0.0, remember=known, scope=True
    )


def answers(root: Path, home: Path, prompts: list[str], *, version: int | None) -> list[str]:
    """What it says, in one conversation after the other."""
    with open_text(root, home=home, version=version, threads=1, trials=False) as session:
        return [session.complete(one, max_tokens=6) for one in prompts]


@pytest.mark.slow
def test_what_is_known_is_answered_as_it_was_and_what_is_taught_otherwise(
    root: Path, home: Path, tmp_path: Path, settings: LearnSettings
) -> None:
    """In one session, in turn; a version without a scope changes both."""
    data = lines(tmp_path / "taught.jsonl", TAUGHT, " the lamp")
    made = learn(root, data, settings=settings, home=home, threads=1)
    mixed = [KNOWN[0], TAUGHT[0], KNOWN[1], KNOWN[0], TAUGHT[1], "is the oven on in the attic"]

    before = answers(root, home, mixed, version=0)
    after = answers(root, home, mixed, version=None)

    assert made.is_used
    # What lies beyond the scope need not be held on to.
    assert made.past <= len(KNOWN) // 10
    assert any("are like what is taught" in note for note in made.notes)
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        True,
        False,
        True,
        True,
        False,
        True,
    ]
    # Each alone is answered the same: sessions share no memory that the other computed.
    assert [answers(root, home, [one], version=None)[0] for one in mixed] == after


@pytest.mark.slow
def test_a_server_does_the_same_and_changes_while_it_answers(
    root: Path, home: Path, tmp_path: Path, settings: LearnSettings
) -> None:
    """Begun as it was built, then with a version that has a scope, each asked twice."""
    served_with = ServeSettings(
        models=(ModelSettings(bundle=str(root), name="tiny", threads=1),),
        shelf=ShelfSettings(watch_s=0.05),
    )
    asked = [KNOWN[0], TAUGHT[0], KNOWN[0], TAUGHT[0]]
    with (
        opened_state(served_with, home=home, told=lambda _: None) as state,
        serving(state=state, settings=served_with) as served,
    ):
        before = [_ask(served.url, one) for one in asked]
        data = lines(tmp_path / "taught.jsonl", TAUGHT, " the lamp")
        learn(root, data, settings=settings, home=home, threads=1)
        for _ in range(200):
            if _version(served.url) == 1:
                break
        after = [_ask(served.url, one) for one in asked]
    with (
        opened_state(served_with, home=home, told=lambda _: None) as state,
        serving(state=state, settings=served_with) as served,
    ):
        again = [_ask(served.url, one) for one in asked]

    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] == after[3] != before[1]
    assert again == after


def _ask(url: str, text: str) -> str:
    fields = {"model": "tiny", "prompt": text, "max_tokens": 6, "temperature": 0}
    said = httpx2.post(f"{url}/v1/completions", json=fields, timeout=60).json()
    return str(said["choices"][0]["text"])


def _version(url: str) -> int:
    (model,) = httpx2.get(f"{url}/v1/models").json()["data"]
    return int(model.get("learned", 0) or 0)


@pytest.mark.slow
def test_what_is_taught_later_joins_the_scope(
    root: Path, home: Path, tmp_path: Path, settings: LearnSettings
) -> None:
    """Without being asked for again; and no version without one can get one."""
    data = lines(tmp_path / "taught.jsonl", TAUGHT, " the lamp")
    learn(root, data, settings=settings, home=home, threads=1)
    other = lines(tmp_path / "other.jsonl", ["sing a song", "sing us a song"], " song")
    made = learn(root, other, settings=replace(settings, scope=None), home=home, threads=1)
    versions = open_versions(root, home)

    scope = versions.scope(versions.current().version)

    assert made.version == 2
    assert scope is not None
    assert scope.holds([TAUGHT[0]])
    assert scope.holds(["sing a song"])
    assert not scope.holds([KNOWN[0]])
    learn(root, other, settings=replace(settings, scope=False), home=home, threads=1)
    if versions.current().number == 3:
        with pytest.raises(InputError, match="answers all prompts with what it learned"):
            learn(root, data, settings=settings, home=home, threads=1)


@pytest.mark.slow
def test_other_engines_and_bundles_without_anything_known_are_refused(
    root: Path,
    home: Path,
    tmp_path: Path,
    settings: LearnSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what to do instead."""
    data = lines(tmp_path / "taught.jsonl", TAUGHT, " the lamp")
    with pytest.raises(InputError, match="--remember FILE"):
        learn(root, data, settings=replace(settings, remember=None), home=home, threads=1)
    text = tmp_path / "story.txt"
    text.write_text("once upon a time there was a lamp " * 20, encoding="utf-8")
    with pytest.raises(InputError, match="a scope tells prompts apart"):
        learn(root, text, settings=settings, home=home, threads=1)
    learn(root, data, settings=settings, home=home, threads=1)

    with pytest.raises(InputError, match="engine 'onnx' cannot leave it out"):
        open_text(root, home=home, engine="onnx", threads=1)

    assert main(["versions", str(root)]) == 0
    assert "prompts like those taught" in capsys.readouterr().out
