"""From settings to what takes personal data out of requests."""

from pathlib import Path

import numpy as np
import pytest
from tests.device.networks.test_texts import tokenizer
from tests.network_bundles import Drawing, Op, info, pack

from onhand.core.errors import InputError, RecipeError
from onhand.core.feed import TextFeed
from onhand.device.privacy.opening import opened_redaction
from onhand.device.privacy.settings import PrivacySettings
from onhand.device.serving.settings import parse_settings


def bundle(root: Path, labels: str) -> Path:
    """A network that takes "cat" for a person's first word, and "sat" for what goes on."""
    table = np.zeros((9, 3), dtype=np.float32)
    table[:, 0] = 0.5
    table[5, 1] = table[6, 2] = 1.0
    drawing = Drawing(
        ops=[Op(kind="Gather", inputs=["table", "ids"], outputs=["logits"])],
        constants={"table": table},
        inputs=(info("ids", 1, None, dtype="int64"),),
        outputs=(info("logits", 1, None, 3),),
    )
    files = {"tokenizer.json": tokenizer(), "labels.txt": labels.encode()}
    feed = TextFeed(ids="ids", mask="", types="", max_tokens=8)
    return pack(root, {"base": drawing}, feed=feed, files=files, n_labels=3).root


def test_names_are_found_by_a_bundle(tmp_path: Path) -> None:
    """In order with all else, also in texts that are longer than the network reads."""
    names = str(bundle(tmp_path / "ner", "O\nB-PER\nI-PER\n"))

    with opened_redaction(PrivacySettings(names=names), home=tmp_path / "home") as redaction:
        assert redaction is not None
        short, long = "a cat sat: bob@x.com", "on mat a cat sat on a mat on a mat on a mat: cat"
        found = [
            [(one.kind, text[one.start : one.end]) for one in redaction.found(text)]
            for text in (short, long)
        ]
        assert redaction.veil().finds_names

    assert found[0] == [("name", "cat sat"), ("email", "bob@x.com")]
    assert found[1] == [("name", "cat sat"), ("name", "cat")]  # cut within the first


def test_a_bundle_that_finds_no_persons_is_refused(tmp_path: Path) -> None:
    """When the server starts."""
    names = str(bundle(tmp_path / "ner", "O\nB-LOC\nI-LOC\n"))

    with (
        pytest.raises(InputError, match="finds no names"),
        opened_redaction(PrivacySettings(names=names), home=tmp_path / "home"),
    ):
        pass


def test_without_a_bundle_names_are_not_looked_for(tmp_path: Path) -> None:
    """And without redaction nothing is."""
    with opened_redaction(PrivacySettings(), home=tmp_path) as redaction:
        assert redaction is not None
        assert not redaction.veil().finds_names
    with opened_redaction(PrivacySettings(redact=False), home=tmp_path) as nothing:
        assert nothing is None


def test_settings_are_read_beside_their_file() -> None:
    """A folder is beside the file; a slip is refused."""
    text = '[privacy]\nnames = "ner"\n[[model]]\nbundle = "b"\n'

    found = parse_settings(text, environment={}, where="place/serve.toml").redaction

    assert found == PrivacySettings(names=str(Path("place") / "ner"))
    with pytest.raises(RecipeError, match="redact"):
        parse_settings("[privacy]\nredakt = false\n", environment={})
