"""What a network learns: heads, last blocks, biases, products of low rank; on floats and codes."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.host.learning.lesson_nets import (
    TEXTS,
    encoder_net,
    int8,
    packed,
    plain_net,
    residual_net,
    teaching,
)
from tests.host.networks.graphs import Drawing
from tests.host.networks.quantized_nets import bench

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.lesson_files import read_scales
from onhand.device.learning.rounding import rounded_values
from onhand.device.networks.learned import with_learned
from onhand.device.networks.opening import named_engine
from onhand.host.learning.network_files import AddedLesson, add_network_lesson
from onhand.host.learning.wanted import parse_learnable
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

Make = Callable[[], Graph]
PLAIN: Make = plain_net
RESIDUAL: Make = residual_net


@cache
def codes() -> Graph:
    """The residual network on integers."""
    return int8(residual_net())


def words() -> Graph:
    """An encoder that tells ten classes apart."""
    return encoder_net(n_classes=10)


CASES = [
    pytest.param(PLAIN, "last-block", id="plain-last-block"),
    pytest.param(RESIDUAL, "last-block", id="residual-last-block"),
    pytest.param(codes, "head", id="int8-head"),
    pytest.param(codes, "last-block", id="int8-last-block"),
    pytest.param(codes, "bias", id="int8-bias"),
    pytest.param(words, "last-block", id="encoder-last-block"),
    pytest.param(words, "bias", id="encoder-bias"),
    pytest.param(words, "lora,rank=2", id="encoder-lora"),
    pytest.param(encoder_net, "head", id="vectors-head"),
    pytest.param(encoder_net, "lora,rank=2,classes=cup+lamp", id="vectors-lora"),
]


def bundle_of(make: Make, place: Path) -> Bundle:
    """A bundle without a lesson."""
    if make is words:
        return packed(make(), place, task="text-classification", feed=TEXTS)
    if make is encoder_net:
        return packed(make(), place, task="text-embedding", feed=TEXTS, labels=())
    return packed(make(), place)


def inputs_of(bundle: Bundle, n: int = 3) -> dict[str, Array]:
    """Examples of its inputs."""
    random = np.random.default_rng(4)
    feeds: dict[str, Array] = {}
    for info in bundle.manifest.network.inputs:
        if info.dtype == "int64":
            ones = np.ones((n, 7), np.int64)
            feeds[info.name] = ones if info.name == "mask" else random.integers(0, 40, (n, 7))
        else:
            shape = (n, *(size or 1 for size in info.shape[1:]))
            feeds[info.name] = random.normal(0, 1, shape).astype(np.float32)
    if "mask" in feeds:
        feeds["mask"][0, 4:] = 0
    return feeds


def taught_values(added: AddedLesson, start: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Values away from the start, with two classes more where classes may be added."""
    random = np.random.default_rng(8)
    values: dict[str, FloatArray] = {}
    for name, made in added.lesson.trainables.items():
        moved = start[name] + random.normal(0, 0.05, made.shape).astype(np.float32)
        if made.grows:
            more = random.normal(0, 0.3, (2, *made.shape[1:])).astype(np.float32)
            moved = np.concatenate([moved, more])
        values[name] = moved.astype(np.float32)
    return values


@pytest.mark.parametrize(("make", "kind"), CASES)
def test_what_is_learned_is_what_answers(make: Make, kind: str, tmp_path: Path) -> None:
    """Every gradient is PyTorch's, or there were no lesson; engines answer as the lesson does."""
    added = teaching(bundle_of(make, tmp_path / "b"), kind)
    bundle = read_bundle(tmp_path / "b")
    lesson = open_lesson(bundle, threads=1)
    values = taught_values(added, lesson.start())
    labels = ["new", "newer"] if any(t.grows for t in added.lesson.trainables.values()) else []
    feeds = inputs_of(bundle)
    given = dict(feeds) if lesson.lesson.trunk is None else {"latent": lesson.latent(feeds)}
    given |= {"labels": np.zeros(3, np.int64), "weights": np.ones(3, np.float32)}

    # What answers in integers is rounded first.
    scales = read_scales(bundle, lesson.lesson)
    rounded = rounded_values(lesson.lesson, values, scales)
    wanted = lesson.teach(rounded, given).outputs["logits"]
    learned = with_learned(bundle, values, labels=labels)
    is_coded = make is codes and kind == "last-block"

    assert bool(scales) == is_coded
    assert learned.learned is not None
    assert learned.learned.is_coded == is_coded

    if make is plain_net:  # which ends with a softmax
        raised = np.exp(wanted - wanted.max(axis=1, keepdims=True))
        wanted = raised / raised.sum(axis=1, keepdims=True)
    for engine in ("onnx", "reference"):
        with_it = named_engine(engine).open(learned, threads=1).run(feeds)
        found = next(iter(with_it.values()))
        # On integers a sum that lies between two codes may fall to either, if the biases are
        # integers of 32 bits in one place and floats in the other.
        few = 0.1 if make is codes and kind != "head" else 2e-5
        np.testing.assert_allclose(found, wanted, atol=few)
    assert added.checked.gradients.gradient_error < 1e-4


def test_a_build_s_check_goes_fifty_steps(tmp_path: Path) -> None:
    """On either side from the same start, each by its own gradients."""
    bundle = packed(plain_net(), tmp_path / "b")

    added = add_network_lesson(
        bundle, parse_learnable("head"), samples=Samples(feeds=[]), threads=1
    )

    assert added.checked.gradients.n_steps == 50


@pytest.mark.parametrize("make", [plain_net, codes])
def test_nothing_changes_before_something_is_learned(make: Make, tmp_path: Path) -> None:
    """With the starting values a network answers as its bundle does."""
    plain = bundle_of(make, tmp_path / "b")
    feeds = inputs_of(plain)
    before = named_engine("onnx").open(plain, threads=1).run(feeds)
    teaching(plain, "last-block")

    learned = with_learned(read_bundle(tmp_path / "b"), {})

    after = named_engine("onnx").open(learned, threads=1).run(feeds)
    for name, array in before.items():
        # Scores of a network on integers are rounded no more.
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(after[name], array, atol=scale * 0.02 + 1e-6)


def test_the_last_block_begins_behind_the_residual_one(tmp_path: Path) -> None:
    """Or with it, where hardly anything lies behind it: here one product before the head."""
    added = teaching(packed(residual_net(), tmp_path / "b"), "last-block")

    tensors = {made.tensor for made in added.lesson.trainables.values()}
    assert len(tensors) == 10  # weight and bias of three in the block, of one behind it, the head
    assert added.lesson.trunk is not None


def test_a_plain_chain_learns_its_last_two_products(tmp_path: Path) -> None:
    """With the norm that lies behind them."""
    added = teaching(packed(plain_net(), tmp_path / "b"), "last-block")

    shapes = sorted(made.shape for made in added.lesson.trainables.values() if len(made.shape) > 1)
    assert shapes == [(8, 6, 3, 3), (10, 12), (12, 8, 3, 3)]
    assert sum(made.shape == (12,) for made in added.lesson.trainables.values()) == 3


def test_an_encoder_s_last_block_is_its_layer(tmp_path: Path) -> None:
    """Attention included, and the mask travels with what goes in."""
    bundle = packed(words(), tmp_path / "b", task="text-classification", feed=TEXTS)
    added = teaching(bundle, "last-block")

    matrices = [made for made in added.lesson.trainables.values() if len(made.shape) == 2]
    assert len(matrices) == 7  # query, key, value, output, two of the layer's, the head
    lesson = open_lesson(read_bundle(tmp_path / "b"), threads=1)
    assert lesson.latent(inputs_of(bundle)).shape == (3, 7, 17)  # 16 channels and the mask


def test_a_cut_can_be_named(tmp_path: Path) -> None:
    """Everything behind it is learned; where that cannot be, values are named where it can."""
    bundle = packed(plain_net(), tmp_path / "b")

    with pytest.raises(InputError, match=r"cannot be cut there, but at .*n5"):
        teaching(bundle, "last-block,cut=nowhere")
    added = teaching(bundle, "last-block,cut=n5.Relu")

    assert sum(len(made.shape) == 4 for made in added.lesson.trainables.values()) == 0


def test_new_classes_get_names(tmp_path: Path) -> None:
    """Behind those that the bundle has; a number of them that does not fit is refused."""
    added = teaching(packed(plain_net(), tmp_path / "b"), "head")
    bundle = read_bundle(tmp_path / "b")
    start = open_lesson(bundle, threads=1).start()
    values = taught_values(added, start)

    learned = with_learned(bundle, values, labels=["cup", "lamp"])

    assert learned.learned is not None
    assert learned.learned.labels[-3:] == ("class 9", "cup", "lamp")
    assert learned.manifest.network.n_labels == 12
    with pytest.raises(InputError, match="12 classes were learned, and 11 have a name"):
        with_learned(bundle, values, labels=["cup"])
    with pytest.raises(InputError, match="name of another"):
        with_learned(bundle, values, labels=["cup", "class 3"])
    with pytest.raises(InputError, match="'tail' is not one that is learned"):
        with_learned(bundle, {"tail": np.zeros(1, np.float32)})
    with pytest.raises(InputError, match="already"):
        with_learned(learned, values)


def test_a_head_on_vectors_begins_without_classes(tmp_path: Path) -> None:
    """The first example brings the first; scores then come before the vector."""
    bundle = packed(encoder_net(), tmp_path / "b", task="text-embedding", feed=TEXTS, labels=())
    added = teaching(bundle, "head")
    bundle = read_bundle(tmp_path / "b")
    assert added.lesson.trainables["head.weight"].shape == (0, 16)

    values = taught_values(added, open_lesson(bundle, threads=1).start())
    learned = with_learned(bundle, values, labels=["cup", "lamp"])

    network = learned.manifest.network
    assert network.task == "text-classification"
    assert [info.name for info in network.outputs][1:] == [
        info.name for info in bundle.manifest.network.outputs
    ]
    assert learned.learned is not None
    assert learned.learned.labels == ("cup", "lamp")


def test_frozen_weights_are_stored_once(tmp_path: Path) -> None:
    """What a lesson adds is its graphs, and what is learned."""
    draw = Drawing(x=("N", 64))
    random = np.random.default_rng(0)
    data = "x"
    for _ in range(3):
        w = draw.constant(random.normal(0, 0.1, (64, 64)))
        data = draw.node("Tanh", draw.node("MatMul", data, w))
    scores = draw.node("MatMul", data, draw.constant(random.normal(0, 0.1, (64, 10))))
    bundle = packed(draw.graph(scores), tmp_path / "b")
    before = bundle.size_bytes()

    added = teaching(bundle, "lora,rank=1")

    assert before > 3 * 64 * 64 * 4
    learned = sum(np.prod(made.shape) * 4 for made in added.lesson.trainables.values())
    assert added.bundle.size_bytes() - before < learned + 24_000


def test_layers_that_share_a_weight_share_what_is_learned(tmp_path: Path) -> None:
    """A pair of factors for the weight, wherever it is read."""
    draw = Drawing(x=("N", 8))
    w = draw.constant(np.random.default_rng(0).normal(0, 0.5, (8, 8)))
    data = draw.node("Tanh", draw.node("MatMul", draw.node("Tanh", draw.node("MatMul", "x", w)), w))
    head = draw.constant(np.random.default_rng(1).normal(0, 0.5, (8, 10)))
    added = teaching(
        packed(draw.graph(draw.node("MatMul", data, head)), tmp_path / "b"), "lora,rank=2"
    )

    parts = [made.part for made in added.lesson.trainables.values()]
    assert parts.count("lora_A") == parts.count("lora_B") == 1


def two_heads() -> Graph:
    """Scores that are the sum of two products."""
    draw = Drawing(x=("N", 8))
    a, b = (draw.constant(np.ones((8, 3)) * n) for n in (1, 2))
    return draw.graph(draw.node("Add", draw.node("MatMul", "x", a), draw.node("MatMul", "x", b)))


def one_product() -> Graph:
    """A head and nothing else."""
    draw = Drawing(x=("N", 8))
    return draw.graph(draw.node("MatMul", "x", draw.constant(np.ones((8, 3)))))


@pytest.mark.parametrize(
    ("make", "kind", "why"),
    [
        (two_heads, "head", "no head"),
        (one_product, "lora", "no product of a matrix before its head"),
        (one_product, "bias", "no biases before its head"),
        (one_product, "last-block", "cannot be cut"),
        (plain_net, "head,classes=a", "has its own"),
        (encoder_net, "lora,targets=nothing", "called nothing"),
    ],
)
def test_what_cannot_be_learned_is_said(make: Make, kind: str, why: str, tmp_path: Path) -> None:
    """And nothing is added to the bundle."""
    if make is encoder_net:
        bundle = bundle_of(make, tmp_path / "b")
    else:
        bundle = packed(make(), tmp_path / "b", labels=())

    with pytest.raises(InputError, match=why):
        teaching(bundle, kind)

    assert "learn.json" not in read_bundle(tmp_path / "b").manifest.files


@pytest.mark.parametrize("kind", ["lora,rank=2", "last-block"])
def test_matrices_of_a_few_bits_stay_or_become_floats(kind: str, tmp_path: Path) -> None:
    """LoRA leaves the codes where they are; a last block that is learned is of floats."""
    quantize = QuantizeNetwork(bits=4, scheme="weights")
    graph = quantize.apply(wide_encoder(), bench(wide_encoder(), Samples(feeds=[]))).graph
    assert any(node.op == "MatMulNBits" for node in graph.nodes)
    bundle = packed(graph, tmp_path / "b")

    added = teaching(bundle, kind)

    assert added.checked.gradients.gradient_error < 1e-4
    shapes = {made.shape for made in added.lesson.trainables.values()}
    assert ((64, 2) in shapes) if kind.startswith("lora") else ((64, 64) in shapes)


def wide_encoder() -> Graph:
    """Products that are wide enough for 4 bits."""
    draw = Drawing(x=("N", 64))
    random = np.random.default_rng(0)
    data = "x"
    for _ in range(2):
        w = draw.constant(random.normal(0, 0.1, (64, 64)))
        data = draw.node("Tanh", draw.node("MatMul", data, w))
    return draw.graph(draw.node("MatMul", data, draw.constant(random.normal(0, 0.1, (64, 10)))))


def test_what_is_stored_without_its_zeros_is_learned_from(tmp_path: Path) -> None:
    """A trunk holds some of a variant's tensors: those that are stored so are found by name."""
    draw = Drawing(x=("N", 64))
    random = np.random.default_rng(0)
    data = "x"
    for _ in range(2):
        full = random.normal(0, 0.3, (64, 64)) * (random.random((64, 64)) < 0.1)
        data = draw.node("Tanh", draw.node("MatMul", data, draw.constant(full)))
    scores = draw.node("MatMul", data, draw.constant(random.normal(0, 0.3, (64, 10))))
    plain = packed(draw.graph(scores), tmp_path / "b")
    assert plain.manifest.variants["only"].sparse
    before = named_engine("onnx").open(plain, threads=1).run(inputs_of(plain))

    teaching(plain, "head")

    bundle = read_bundle(tmp_path / "b")
    lesson = open_lesson(bundle, threads=1)
    given: dict[str, Array] = {"latent": lesson.latent(inputs_of(bundle))}
    given |= {"labels": np.zeros(3, np.int64), "weights": np.ones(3, np.float32)}
    taught = lesson.teach(lesson.start(), given)
    (wanted,) = before.values()
    np.testing.assert_allclose(taught.outputs["logits"], wanted, atol=1e-5)
    after = named_engine("onnx").open(with_learned(bundle, {}), threads=1).run(inputs_of(bundle))
    np.testing.assert_allclose(next(iter(after.values())), wanted, atol=1e-5)
