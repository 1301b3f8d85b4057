"""What every engine for networks must do; by entry points, so that a third party's is tested."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.network_bundles import WEIGHTS, Drawing, Op, classifier, info, pack

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import BundleCorrupt, EngineError, InputError, ShapeError
from onhand.device.networks.base import Array, NetworkEngine, NetworkLoaded
from onhand.device.probe import current_profile

Packer = Callable[..., Bundle]


@pytest.fixture
def engine(network_engine: NetworkEngine) -> NetworkEngine:
    """Each engine for networks in turn, in place of those for language models."""
    return network_engine


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    """A function that gives the classifier's bundle."""
    made: dict[int | None, Bundle] = {}

    def give(batch: int | None = 1) -> Bundle:
        if batch not in made:
            drawing = classifier(np.random.default_rng(0), batch=batch)
            made[batch] = pack(tmp_path_factory.mktemp("network") / "tiny", {"fp32": drawing})
        return made[batch]

    return give


@pytest.fixture
def loaded(engine: NetworkEngine, packed: Packer) -> Iterator[NetworkLoaded]:
    """The classifier in memory."""
    opened = engine.open(packed(), threads=1)
    yield opened
    opened.close()


@pytest.fixture
def picture(rng: np.random.Generator) -> Array:
    """What the classifier takes."""
    return rng.standard_normal((1, 3, 12, 12), dtype=np.float32)


def by_hand(picture: Array, drawing: Drawing) -> NDArray[np.float64]:
    """The classifier as loops over places."""
    c = {name: np.asarray(array, dtype=np.float64) for name, array in drawing.constants.items()}
    padded = np.pad(picture[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    first = np.zeros((8, 6, 6))
    for y, x in np.ndindex(6, 6):
        window = padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
        first[:, y, x] = np.tensordot(c["w1"], window, axes=3) + c["b1"]
    first = np.pad(first.clip(0, 6), ((0, 0), (1, 1), (1, 1)))
    second = np.zeros((8, 6, 6))
    for y, x in np.ndindex(6, 6):
        second[:, y, x] = (first[:, y : y + 3, x : x + 3] * c["w2"][:, 0]).sum(axis=(1, 2))
    pooled = np.maximum(second, 0).mean(axis=(1, 2))
    scores: NDArray[np.float64] = (c["w3"] @ pooled + c["b3"])[None]
    return scores


def close(found: Array, expected: Array) -> bool:
    """Equal within the rounding of float32 sums of a few dozen products."""
    return np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-4, atol=1e-5)


def test_answers_are_those_of_loops_by_hand(loaded: NetworkLoaded, picture: Array) -> None:
    """Within the rounding of float32."""
    outputs = loaded.run({"x": picture})

    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    expected = by_hand(picture, classifier(np.random.default_rng(0)))
    assert close(outputs["y"], expected)


def test_an_engine_says_that_it_can(engine: NetworkEngine, packed: Packer) -> None:
    """What it says and what it does agree."""
    assert engine.why_not(packed(), current_profile()) is None
    assert engine.why_not(packed(), current_profile(), variant="fp32") is None


def test_rows_are_independent_where_any_number_fits(
    engine: NetworkEngine, packed: Packer, rng: np.random.Generator
) -> None:
    """Three rows at once are three rows one by one, and one again after three."""
    rows = rng.standard_normal((3, 3, 12, 12), dtype=np.float32)
    loaded = engine.open(packed(None), threads=2)

    together = loaded.run({"x": rows})["y"]
    single = np.concatenate([loaded.run({"x": rows[i : i + 1]})["y"] for i in range(3)])

    assert together.shape == (3, 5)
    assert close(together, single)


def test_outputs_are_the_callers_own(loaded: NetworkLoaded, picture: Array) -> None:
    """Neither a later run nor a closed network changes them, and they may be written to."""
    first = loaded.run({"x": picture})["y"]
    kept = first.copy()
    second = loaded.run({"x": picture * 2})["y"]
    loaded.close()

    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    first[:] = 0
    assert second.any()


def test_inputs_need_not_be_contiguous(loaded: NetworkLoaded, picture: Array) -> None:
    """Views with any strides give the same answer, and stay as they were."""
    expected = loaded.run({"x": picture})["y"]
    backwards = np.ascontiguousarray(picture[..., ::-1])
    view = backwards[..., ::-1]
    view.flags.writeable = False

    np.testing.assert_array_equal(loaded.run({"x": view})["y"], expected)
    np.testing.assert_array_equal(backwards[..., ::-1], picture)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, "'x' is missing"),
        ({"x": np.zeros((1, 3, 12, 12), np.float32), "z": np.zeros(1)}, "'z' is unknown"),
        ({"x": np.zeros((1, 3, 12, 12))}, "float64, must be float32"),
        ({"x": np.zeros((1, 3, 12, 12), np.dtype(">f4"))}, "must be float32"),
        ({"x": np.zeros((2, 3, 12, 12), np.float32)}, r"\(2, 3, 12, 12\), must be \(1, 3"),
        ({"x": np.zeros((3, 12, 12), np.float32)}, "must be"),
    ],
)
def test_wrong_inputs_are_refused(
    loaded: NetworkLoaded, feeds: dict[str, Array], said: str
) -> None:
    """By name, and the network works afterwards."""
    with pytest.raises(ShapeError, match=said):
        loaded.run(feeds)

    assert loaded.run({"x": np.zeros((1, 3, 12, 12), np.float32)})["y"].shape == (1, 5)


def test_a_closed_network_says_so(loaded: NetworkLoaded, picture: Array) -> None:
    """Closing twice is safe, running is an error."""
    loaded.close()
    loaded.close()

    with pytest.raises(EngineError, match="closed"):
        loaded.run({"x": picture})


def test_threads_share_a_network(loaded: NetworkLoaded, rng: np.random.Generator) -> None:
    """Runs at the same time give what each gives alone."""
    pictures = rng.standard_normal((24, 1, 3, 12, 12), dtype=np.float32)
    alone = [loaded.run({"x": picture})["y"] for picture in pictures]

    with ThreadPoolExecutor(max_workers=4) as pool:
        together = list(pool.map(lambda picture: loaded.run({"x": picture})["y"], pictures))

    np.testing.assert_array_equal(together, alone)


def test_an_unknown_variant_is_refused(engine: NetworkEngine, packed: Packer) -> None:
    """By name."""
    with pytest.raises(InputError, match="no variant 'int3'"):
        engine.open(packed(), variant="int3", threads=1)


def changed(tmp_path: Path, **changes: object) -> Bundle:
    """A bundle with right hashes whose manifest and graph differ in something."""
    drawing = classifier(np.random.default_rng(0))
    described = Drawing(**{slot: getattr(drawing, slot) for slot in Drawing.__slots__} | changes)
    return pack(tmp_path / "changed", {"fp32": drawing}, described=described)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": (info("image", 1, 3, 12, 12),)}, "image"),
        ({"inputs": (info("x", 1, 3, 12, 12, dtype="uint8"),)}, "uint8"),
        ({"inputs": (info("x", 1, 3, 14, 12),)}, "14"),
        ({"inputs": (info("x", None, 3, 12, 12),)}, "any"),
        ({"inputs": (info("x", 3, 12, 12),)}, "x"),
        ({"inputs": (info("x", 1, 3, 12, 12), info("x2", 1))}, "x2"),
        ({"outputs": (info("scores", 1, 5),)}, "scores"),
        ({"outputs": (info("y", 1, 5, dtype="int64"),)}, "int64"),
    ],
)
def test_a_description_of_another_network_is_refused(
    engine: NetworkEngine, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    """Before it runs: what the manifest says of inputs and outputs holds."""
    with pytest.raises(BundleCorrupt, match=said):
        engine.open(changed(tmp_path, **changes), threads=1)


def test_attack_a_graph_that_is_none(engine: NetworkEngine, tmp_path: Path) -> None:
    """Bytes that are no graph are refused as such."""
    bundle = pack(tmp_path / "tiny", {"fp32": classifier(np.random.default_rng(0))})
    bundle.path("model.onnx").write_bytes(b"not a graph at all")

    with pytest.raises(BundleCorrupt):
        read_bundle(bundle.root)
    with pytest.raises(BundleCorrupt):
        engine.open(bundle, threads=1)


def test_attack_weights_that_end_early(engine: NetworkEngine, tmp_path: Path) -> None:
    """A tensor beyond the end of its file is never read."""
    bundle = pack(tmp_path / "tiny", {"fp32": classifier(np.random.default_rng(0))})
    weights = bundle.path(WEIGHTS)
    weights.write_bytes(weights.read_bytes()[:-4])

    with pytest.raises(BundleCorrupt, match="its shape needs"):
        engine.open(bundle, threads=1)


def test_an_unknown_operator_is_refused(engine: NetworkEngine, tmp_path: Path) -> None:
    """By an error of ours, whether the engine sees it before it opens the graph or then."""
    drawing = Drawing(
        ops=[Op(kind="Frobnicate", inputs=["x"], outputs=["y"])],
        constants={"w": np.zeros(1, np.float32)},
        inputs=(info("x", 1, 4),),
        outputs=(info("y", 1, 4),),
    )
    bundle = pack(tmp_path / "tiny", {"fp32": drawing})

    with pytest.raises(EngineError, match="Frobnicate"):
        engine.open(bundle, threads=1)


def test_inputs_and_constants_may_be_outputs(
    engine: NetworkEngine, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Each output is an array of its own, in the order of the manifest, of every dtype."""
    drawing = Drawing(
        ops=[
            Op(kind="Identity", inputs=["x"], outputs=["same"]),
            Op(kind="Identity", inputs=["same"], outputs=["again"]),
            Op(kind="Identity", inputs=["c"], outputs=["kept"]),
            Op(kind="Greater", inputs=["x", "c"], outputs=["more"]),
            Op(kind="Cast", inputs=["n"], outputs=["n32"], attributes={"to": 6}),
            Op(kind="Add", inputs=["n", "n"], outputs=["twice"]),
        ],
        constants={"c": np.arange(3, dtype=np.float32)},
        inputs=(info("n", None, dtype="int64"), info("x", 2, 3)),
        outputs=(
            info("again", 2, 3),
            info("same", 2, 3),
            info("kept", 3),
            info("more", 2, 3, dtype="bool"),
            info("n32", None, dtype="int32"),
            info("twice", None, dtype="int64"),
        ),
    )
    loaded = engine.open(pack(tmp_path / "tiny", {"fp32": drawing}), threads=1)
    x = rng.standard_normal((2, 3), dtype=np.float32)
    n = np.array([5, -7, 2**20], dtype=np.int64)

    outputs = loaded.run({"x": x, "n": n})
    expected: dict[str, Array] = {
        "again": x,
        "same": x,
        "kept": np.arange(3, dtype=np.float32),
        "more": x > np.arange(3),
        "n32": n.astype(np.int32),
        "twice": n * 2,
    }

    assert list(outputs) == list(expected)
    for name, array in expected.items():
        assert outputs[name].dtype == array.dtype
        np.testing.assert_array_equal(outputs[name], array)
    outputs["same"][:] = 9  # neither the input nor another output
    np.testing.assert_array_equal(outputs["again"], expected["again"])
    np.testing.assert_array_equal(loaded.run({"x": x, "n": n})["kept"], expected["kept"])
    assert not np.shares_memory(outputs["again"], x)
    assert (x != 9).all()
