"""`onhand.host.costs.memory`: what a process holds."""

from dataclasses import replace

import numpy as np
import pytest
from tests.host.costs.parts import CALIBRATION
from tests.models import DECODER

from onhand.core.quantized import GroupFormat
from onhand.host.costs.memory import USUAL_MEMORY, peak_memory_bytes, running_memory
from onhand.host.costs.synthetic import Sizes

FORMATS: dict[str, GroupFormat | None] = dict.fromkeys(DECODER.matrices(), GroupFormat())


def test_keys_and_values_come_in_pages() -> None:
    """Sixty-four tokens each, two bytes a number, heads padded to sixteen numbers."""
    decoder = Sizes(n_layers=3, n_kv_heads=2, head_dim=24).decoder

    found = [running_memory(decoder, tokens=n, threads=1).kv_bytes for n in (1, 64, 65)]

    page = 64 * 3 * 2 * 2 * 32 * 2
    assert found == [page, page, 2 * page]


def test_every_thread_has_room_of_its_own() -> None:
    """And nothing else grows with them."""
    one, two, three = (running_memory(DECODER, tokens=64, threads=n).work_bytes for n in (1, 2, 3))

    assert two - one == three - two > 0


def test_rotary_positions_grow_by_blocks() -> None:
    """Of 1024 positions, however long the context is."""
    decoder = replace(DECODER, context=8192)

    short, long = (running_memory(decoder, tokens=n, threads=1).table_bytes for n in (1024, 1025))

    assert long - short == 4 * 1024 * 16


def test_learned_positions_are_there_whole() -> None:
    """A vector for each of the context."""
    learned = replace(DECODER, positions="learned")

    found = running_memory(learned, tokens=1, threads=1).table_bytes

    assert found >= 4 * DECODER.context * DECODER.width


def test_large_vocabularies_peak_while_they_are_read() -> None:
    """Weights come later: they take the place that reading freed."""
    words = replace(DECODER, vocab_size=200_000)
    costs = CALIBRATION.memory

    def peak(n_layers: int) -> int:
        decoder = replace(words, layers=DECODER.layers[:1] * n_layers)
        formats = dict.fromkeys(decoder.matrices(), GroupFormat(bits=2))
        return peak_memory_bytes(decoder, formats, costs, tokens=64, threads=1)

    assert peak(1) == peak(2) == int(costs.process_bytes + 200_000 * costs.token_peak_bytes)


def test_another_engine_holds_more() -> None:
    """Its library, and pages of the file beside what it packed."""
    plain = peak_memory_bytes(DECODER, FORMATS, USUAL_MEMORY, tokens=64, threads=1)
    exact = peak_memory_bytes(
        DECODER, FORMATS, USUAL_MEMORY, tokens=64, threads=1, accuracy_level=0
    )

    assert exact - plain > 20 * 2**20


@pytest.mark.parametrize("mlp_width", [96, 90])
def test_widths_that_fill_no_tile_are_kept_whole(mlp_width: int) -> None:
    """Such a product is made before it is used."""
    decoder = Sizes(mlp_width=mlp_width).decoder

    work = running_memory(decoder, tokens=1, threads=1).work_bytes

    whole = running_memory(Sizes(mlp_width=96).decoder, tokens=1, threads=1).work_bytes
    assert (work > whole) == bool(np.mod(mlp_width, 16))
