"""What moves into the home: drawn from the seed alone, and asked about in other words."""

import json
from collections import Counter
from pathlib import Path

from examples.house_assistant.actions import problems
from examples.house_assistant.newcomers import (
    NEWCOMERS,
    asked,
    taught,
    write_known,
    write_lines,
)

from onhand.device.learning.example_files import read_examples
from onhand.device.learning.examples import Dialogue


def test_twenty_examples_show_each_newcomer_in_both_languages() -> None:
    """Five of each, two of them at least in each language."""
    found = taught(0)
    counts = Counter((one.category, one.language) for one in found)

    assert len(found) == 20
    assert Counter(one.category for one in found) == dict.fromkeys(NEWCOMERS, 5)
    assert all(counts[name, language] >= 2 for name in NEWCOMERS for language in ("en", "zh"))


def test_what_is_asked_is_phrased_as_nothing_before() -> None:
    """Each has a phrasing that neither training nor teaching has, and none comes twice."""
    found = asked(0, each=20)

    assert all("rule" in one.held for one in found)
    assert not any("rule" in one.held for seed in range(3) for one in taught(seed))
    assert len({one.command for one in found}) == len(found)
    assert not {one.command for one in found} & {one.command for one in taught(0)}


def test_equal_seeds_draw_the_same() -> None:
    """And other seeds others."""
    assert taught(3) == taught(3)
    assert asked(3, each=5) == asked(3, each=5)
    assert taught(3) != taught(4)


def test_answers_keep_the_form_but_for_the_new_action() -> None:
    """Only `water` is unknown to the schema as it was trained."""
    for one in (*taught(1), *asked(1, each=20)):
        expected = ["unknown act 'water'"] if one.category == "water" else []
        assert problems(one.answer) == expected, one.command


def test_new_devices_are_never_called_by_the_name_that_is_said() -> None:
    """Copying does not answer them."""
    for one in asked(2, each=20):
        if one.category in ("boiler", "stars"):
            answer = json.loads(one.answer)
            target = answer["ask"] if "ask" in answer else answer["actions"][0]
            assert target["device"] not in one.command


def test_the_files_are_what_a_device_learns_from(tmp_path: Path) -> None:
    """Every line is read as a conversation of one answer."""
    write_lines(tmp_path / "taught.jsonl", taught(0))
    n_known = write_known(tmp_path / "known.jsonl", count=450)
    new = read_examples(tmp_path / "taught.jsonl").examples
    known = read_examples(tmp_path / "known.jsonl").examples

    assert len(new) == 20
    assert len(known) == n_known == 450
    assert all(isinstance(one, Dialogue) and one.learned == (1,) for one in (*new, *known))
