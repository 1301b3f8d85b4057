"""A search leaves room for what the bundle is to learn."""

from pathlib import Path

import pytest
from tests.models import DECODER

from onhand.core.budget import Budget
from onhand.core.errors import BudgetExceeded
from onhand.core.quantized import GroupFormat
from onhand.host.learning.decoder_files import lesson_bytes
from onhand.host.learning.wanted import parse_learnable
from onhand.host.search.lesson_room import room_beside_decoder

WISH = parse_learnable("lora,rank=2")
SIZE = lesson_bytes(DECODER, dict.fromkeys(DECODER.matrices(), GroupFormat()), WISH)


def test_the_lesson_takes_its_part_of_the_size() -> None:
    """Other limits stay; where nothing is learned, or no size limited, all does."""
    budget = Budget(size_bytes=10.0 * SIZE, quality_loss=0.1)

    assert room_beside_decoder(budget, DECODER, WISH).size_bytes == 9.0 * SIZE
    assert room_beside_decoder(budget, DECODER, WISH).quality_loss == 0.1
    assert room_beside_decoder(budget, DECODER, None) == budget
    assert room_beside_decoder(Budget(quality_loss=0.1), DECODER, WISH).size_bytes is None


def test_examples_that_are_carried_count(tmp_path: Path) -> None:
    """They are a file of the bundle."""
    examples = tmp_path / "known.jsonl"
    examples.write_text("x" * 500)
    wish = parse_learnable(f"lora,rank=2,remember={examples}")

    left = room_beside_decoder(Budget(size_bytes=10.0 * SIZE), DECODER, wish)

    assert left.size_bytes == 9.0 * SIZE - 500


def test_a_budget_that_the_lesson_fills_is_refused() -> None:
    """At once, and with the size that it takes."""
    with pytest.raises(BudgetExceeded, match="what the bundle is to learn takes"):
        room_beside_decoder(Budget(size_bytes=float(SIZE)), DECODER, WISH)
