"""What the native part is given is checked before it is used: an error, never a crash."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.conftest import Pack
from tests.models import VOCAB, varied_decoder

from onhand import native
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError
from onhand.core.weights import open_weights
from onhand.device.engines.native import NativeEngine, NativeLoaded
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
MODULE = native.module
REFUSED = (ValueError, TypeError)
FORBIDDEN_NONE = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "penalty": 1.0, "forbidden": None}


@pytest.fixture(scope="module")
def bundle(pack: Pack) -> Bundle:
    """Two layers that differ, every bias, a head of its own."""
    return pack(varied_decoder(), Quantize(method="rtn"), accuracy_level=4)


@pytest.fixture(scope="module")
def description(bundle: Bundle) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the engine tells the native part of it."""
    told: list[Any] = []

    def decoder(edges: object, layers: object, threads: object, instructions: object) -> None:
        told.extend([edges, layers])

    same = {name: getattr(MODULE, name) for name in ("Arena", "Matrix", "ROTARY_BLOCK")}
    fake = SimpleNamespace(Decoder=decoder, **same)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "module", fake)
        NativeLoaded(open_weights(bundle, "small"), b"", 1)
    return told[0], told[1]


def matrix(n_rows: int, n_inputs: int) -> Any:
    """A matrix of zeros in groups of 32."""
    n_groups = -(-n_inputs // 32)
    return MODULE.Matrix(
        bits=4,
        group=32,
        n_rows=n_rows,
        n_inputs=n_inputs,
        codes=np.zeros(n_rows * n_groups * 16, np.uint8),
        scales=np.zeros((n_rows, n_groups), np.uint16),
        zeros=None,
    )


def opened(edges: dict[str, Any], layers: list[Any], threads: int = 1) -> Any:
    """The decoder of a description, with its first positions."""
    decoder = MODULE.Decoder(edges, layers, threads, "")
    for number, half in enumerate(edges["rotary_halves"]):
        decoder.extend(number, np.zeros((MODULE.ROTARY_BLOCK, 2 * half), np.float32))
    return decoder


shapes = st.lists(st.sampled_from([0, 1, 8, 16, 80, 127, 128, VOCAB]), min_size=1, max_size=3)
arrays = st.builds(
    lambda shape, kind, order: np.zeros(shape, kind, order=order),
    shapes,
    st.sampled_from([np.float32, np.float64, np.int32]),
    st.sampled_from(["C", "F"]),
)
matrices = st.builds(matrix, *[st.sampled_from([1, 16, 80, 112, VOCAB])] * 2)
numbers = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 16, 17, 2**20, 2**22, 2**31, 2**64, 10**30])
anything = (
    st.none()
    | numbers
    | st.floats()
    | st.text(max_size=3)
    | arrays
    | st.lists(matrices | st.none() | numbers, max_size=4)
)


@settings(max_examples=150)
@given(data=st.data())
def test_attack_damaged_description(
    description: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject
) -> None:
    """It is refused, or it runs to the end of its context."""
    edges, layers = dict(description[0]), [dict(layer) for layer in description[1]]
    for _ in range(data.draw(st.integers(1, 2), label="changes")):
        table = data.draw(st.sampled_from([edges, *layers]))
        key = data.draw(st.sampled_from(sorted(table)))
        if data.draw(st.booleans()):
            table[key] = data.draw(anything)
        else:
            del table[key]
    try:
        decoder = opened(edges, layers, 2)
        context = int(edges["context"])
    except REFUSED:
        return
    tokens = np.full(min(context, 200), edges["vocab_size"] - 1, np.int64)

    scores = decoder.step([decoder.conversation(None)], [tokens], True)

    assert scores.shape == (tokens.size, edges["vocab_size"])


@pytest.mark.parametrize("layers", [[None], [3], [{}], [[]]], ids=repr)
def test_attack_layers_that_are_none(
    description: tuple[dict[str, Any], list[dict[str, Any]]], layers: list[object]
) -> None:
    """The message says what is missing."""
    with pytest.raises(ValueError, match=r"is no dictionary|is missing"):
        MODULE.Decoder(description[0], layers, 1, "")


@pytest.mark.parametrize("threads", [0, -1, 1025, 2**31 - 1])
def test_attack_threads(
    description: tuple[dict[str, Any], list[dict[str, Any]]], threads: int
) -> None:
    """As many as asked for would be started."""
    with pytest.raises(ValueError, match="threads must be 1 to 1024"):
        MODULE.Decoder(*description, threads, "")


def test_the_engine_says_it_in_its_own_words(bundle: Bundle) -> None:
    """What the native part refuses is an error of an engine."""
    with pytest.raises(EngineError, match="native: threads must be"):
        NativeEngine().open(bundle, variant="small", threads=5000)


@pytest.mark.parametrize("n_rows", [-1, 0, 2**26 + 1, 2**31 - 1])
def test_attack_sizes_of_a_matrix(n_rows: int) -> None:
    """Before they are multiplied with each other."""
    with pytest.raises(ValueError, match="rows and inputs must be"):
        MODULE.Matrix(
            bits=8,
            group=32,
            n_rows=n_rows,
            n_inputs=2**26,
            codes=np.zeros(0, np.uint8),
            scales=np.zeros((0, 0), np.uint16),
            zeros=None,
        )


@pytest.fixture
def decoder(description: tuple[dict[str, Any], list[dict[str, Any]]]) -> Any:
    """The description, opened."""
    return opened(*description)


def chooser(**changes: object) -> Any:
    """A greedy one, or another."""
    return MODULE.Chooser(**{"temperature": 0.0, "vocab_size": VOCAB, **FORBIDDEN_NONE, **changes})


@pytest.mark.parametrize(
    "tokens", [[-1], [VOCAB], [2**40], [], [1] * 129], ids=["low", "high", "huge", "none", "many"]
)
def test_attack_tokens(decoder: Any, tokens: list[int]) -> None:
    """Unknown, none, or more than the tables of positions know; nothing is remembered of them."""
    row, conversation = np.array(tokens, np.int64), decoder.conversation(None)

    for every in (False, True):
        with pytest.raises(ValueError, match="token"):
            decoder.step([conversation], [row], every)
    with pytest.raises(ValueError, match="token"):
        decoder.choose([conversation], [row], [chooser()], [0.0])
    assert conversation.length == 0


def test_attack_conversations(decoder: Any, description: Any) -> None:
    """None, another decoder's, the same twice, or too few tokens for them."""
    own, row = decoder.conversation(None), np.array([1], np.int64)
    foreign = opened(*description).conversation(None)
    calls: list[Callable[[], object]] = [
        lambda: decoder.step([None], [row], False),
        lambda: decoder.step([foreign], [row], False),
        lambda: decoder.step([own, own], [row, row], False),
        lambda: decoder.step([own], [], False),
        lambda: decoder.step([own, foreign], [row, row], True),
        lambda: decoder.choose([None], [1], [chooser()], [0.0]),
        lambda: decoder.choose([foreign], [1], [chooser()], [0.0]),
        lambda: decoder.choose([own, own], [1, 1], [None, None], [0.0, 0.0]),
        lambda: decoder.choose([own], [1], [], []),
        lambda: decoder.choose([own], [1], [chooser(vocab_size=VOCAB + 1)], [0.0]),
        lambda: decoder.choose([own], [10**30], [None], [0.0]),
        lambda: decoder.choose_each(foreign, row, chooser(), [0.0]),
        lambda: decoder.choose_each(own, row, chooser(vocab_size=VOCAB + 1), [0.0]),
        lambda: decoder.choose_each(own, row, chooser(), []),
        lambda: decoder.choose_each(own, row + VOCAB, chooser(), [0.0]),
    ]

    for call in calls:
        with pytest.raises((*REFUSED, RuntimeError)):
            call()
    assert own.length == 0


@pytest.mark.parametrize(
    "change",
    [{"min_p": 2.0}, {"min_p": float("nan")}, {"penalty": float("nan")}, {"vocab_size": 0}],
    ids=repr,
)
def test_attack_choosers(change: dict[str, object]) -> None:
    """With these no token would be left to choose."""
    with pytest.raises(ValueError, match="out of range"):
        chooser(temperature=1.0, **change)


def test_attack_lengths(decoder: Any) -> None:
    """A rewind to what was not, and a state that is no state."""
    conversation = decoder.conversation(None)
    decoder.step([conversation], [np.arange(5)], False)
    parts = conversation.state()

    for length in (-1, 6, 2**31 - 1):
        with pytest.raises(ValueError, match="rewind"):
            conversation.rewind(length)
        with pytest.raises(ValueError, match=r"state|part"):
            conversation.load(parts, length)
    for wrong in ([], parts[:-1], [*parts, parts[0]], [part[:, :4] for part in parts]):
        with pytest.raises(REFUSED):
            conversation.load(wrong, 5)
        with pytest.raises(REFUSED):
            conversation.append(wrong, 5)
    for begin, end in ((-1, 2), (3, 2), (0, 6), (6, 6)):
        with pytest.raises(ValueError, match="span"):
            conversation.span(begin, end)
    for n in (-1, 4, 6, 2**31 - 1):
        with pytest.raises(ValueError, match=r"span|part"):
            conversation.append(parts, n)
    assert conversation.length == 5


def test_attack_adapters(decoder: Any, description: Any) -> None:
    """Another decoder's, and factors of other shapes or types."""
    n_matrices = 4 * len(description[1]) + 1
    foreign = opened(*description).adapter([None] * n_matrices)
    table = np.zeros((2, 3), np.float32)
    wrong = [table, (table,), (table, table), (table.astype(np.float64), table), 3]

    with pytest.raises(ValueError, match="another decoder's"):
        decoder.conversation(foreign)
    for pair in wrong:
        with pytest.raises(ValueError, match="an adapter has"):
            decoder.adapter([pair] + [None] * (n_matrices - 1))
    for pairs in ([], [None] * (n_matrices + 1)):
        with pytest.raises(ValueError, match="a pair of factors"):
            decoder.adapter(pairs)


def test_attack_positions(description: Any) -> None:
    """Blocks of tables that are not there, or of another shape; and a step before they are."""
    decoder = MODULE.Decoder(*description, 1, "")
    half = description[0]["rotary_halves"][0]
    block = np.zeros((MODULE.ROTARY_BLOCK, 2 * half), np.float32)

    for number in (-1, len(description[0]["rotary_halves"])):
        with pytest.raises(ValueError, match="no such rotary table"):
            decoder.extend(number, block)
    for wrong in (block[1:], block[:, 1:].copy(), block.astype(np.float64)):
        with pytest.raises(ValueError, match="block of positions"):
            decoder.extend(0, wrong)
    with pytest.raises(ValueError, match="rotary positions are missing"):
        decoder.step([decoder.conversation(None)], [np.array([1])], False)
