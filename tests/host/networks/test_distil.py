"""Distillation brings answers together, keeps what must stay, and can be interrupted."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.distil import Distil
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

pytest.importorskip("torch", reason="trains in torch")

F32 = np.dtype(np.float32)


def teacher(seed: int = 0, *, softmax: bool = False, width: int = 6) -> Graph:
    """A little network of pictures: x (N, 3, 8, 8) -> y (N, 4)."""
    rng = np.random.default_rng(seed)
    constants: dict[str, Array] = {
        "conv.w": rng.normal(size=(width, 3, 3, 3)).astype(np.float32),
        "conv.b": rng.normal(size=width).astype(np.float32),
        "head.w": rng.normal(size=(4, width)).astype(np.float32),
        "head.b": rng.normal(size=4).astype(np.float32),
    }
    nodes = [
        Node(op="Conv", inputs=("x", "conv.w", "conv.b"), outputs=("c",),
             attributes={"pads": (1, 1, 1, 1)}),
        Node(op="Relu", inputs=("c",), outputs=("r",)),
        Node(op="GlobalAveragePool", inputs=("r",), outputs=("g",)),
        Node(op="Flatten", inputs=("g",), outputs=("f",)),
        Node(op="Gemm", inputs=("f", "head.w", "head.b"), outputs=("s" if softmax else "y",),
             attributes={"transB": 1}),
    ]  # fmt: skip
    if softmax:
        nodes.append(Node(op="Softmax", inputs=("s",), outputs=("y",)))
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=(Value(name="x", dtype=F32, shape=("N", 3, 8, 8)),),
        outputs=(Value(name="y", dtype=F32, shape=("N", 4)),),
        opset=17,
    )


def damaged(graph: Graph, *, by: float = 0.3) -> Graph:
    """The same with noise on its weights."""
    rng = np.random.default_rng(9)
    return replace(
        graph,
        constants={
            name: (array.astype(float) + by * rng.normal(size=array.shape)).astype(np.float32)
            for name, array in graph.constants.items()
        },
    )


def pictures(n: int = 24, *, labels: bool = False) -> Samples:
    """Random pictures."""
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(n)]
    return Samples(feeds=feeds, labels=[i % 4 for i in range(n)] if labels else None)


def bench(original: Graph | None = None, **changes: object) -> Workbench:
    """A workbench with the teacher and pictures."""
    made = Workbench(
        original=original or teacher(),
        calibration=pictures(),
        task="image-classification",
        threads=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type] # tests name the fields


QUICK = Distil(steps=24, batch=8, learning_rate=0.02, judgements=4, precision="float32")


def figures(note: str) -> tuple[float, float]:
    """The judgement before and after, from a note."""
    before = float(note.split(" before")[0].rsplit(" ", 1)[1])
    return before, float(note.split(" after")[0].rsplit(" ", 1)[1])


def same(first: Graph, second: Graph) -> bool:
    """Whether two graphs hold the very same numbers."""
    return all(np.array_equal(a, second.constants[n]) for n, a in first.constants.items())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.05},
        {"augment": ("flip", "crop", "mixup")},
        {"features": 1.0},
        {"attention": 1.0},
        {"precision": "bfloat16"},
        {"weight_decay": 0.01, "clip": 0.0, "held_out": 0.0},
    ],
    ids=lambda more: ",".join(more) or "plain",
)
def test_training_brings_answers_together(more: Mapping[str, object]) -> None:
    """On pictures that were not learned from, the divergence falls to a half and less."""
    transform = replace(QUICK, **more)  # type: ignore[arg-type] # tests name the fields

    made = transform.apply(damaged(teacher()), bench())

    before, after = figures(made.notes[0])
    assert after < before / 2
    assert set(made.changed) == set(teacher().constants)


def test_the_same_again_for_the_same() -> None:
    """Two runs of one seed give the very same numbers; another seed gives others."""
    first, second = (QUICK.apply(damaged(teacher()), bench()) for _ in range(2))
    other = replace(QUICK, seed=1).apply(damaged(teacher()), bench())

    assert same(first.graph, second.graph)
    assert not same(first.graph, other.graph)


class Counter:
    """Counts steps, and ends the work at one of them as a user would."""

    def __init__(self, *, end: int = 0) -> None:
        self.steps: list[float] = []
        self._end = end

    def start(self, what: str, total: float) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""

    def advance(self, amount: float) -> None:
        """Count."""
        self.steps.append(amount)
        if sum(self.steps) == self._end:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path: Path, optimizer: str) -> None:
    """What is resumed in the middle is what would have been, bit by bit."""
    transform = replace(QUICK, optimizer=optimizer, augment=("flip",), patience=3)
    whole = transform.apply(damaged(teacher()), bench())
    with pytest.raises(KeyboardInterrupt):
        transform.apply(damaged(teacher()), bench(folder=tmp_path, progress=Counter(end=17)))
    counter = Counter()

    resumed = transform.apply(damaged(teacher()), bench(folder=tmp_path, progress=counter))

    assert counter.steps[0] == 12  # the last judgement before the interruption
    assert sum(counter.steps) == QUICK.steps
    assert same(whole.graph, resumed.graph)
    assert whole.notes == resumed.notes


def test_a_checkpoint_of_other_options_is_not_taken_up(tmp_path: Path) -> None:
    """Its numbers would be of another run."""
    replace(QUICK, seed=5).apply(damaged(teacher()), bench(folder=tmp_path))

    made = QUICK.apply(damaged(teacher()), bench(folder=tmp_path))

    assert same(made.graph, QUICK.apply(damaged(teacher()), bench()).graph)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    """Its checkpoint holds the end."""
    first = QUICK.apply(damaged(teacher()), bench(folder=tmp_path))
    counter = Counter()

    again = QUICK.apply(damaged(teacher()), bench(folder=tmp_path, progress=counter))

    assert counter.steps == [QUICK.steps]
    assert same(first.graph, again.graph)


def test_what_does_not_help_is_not_kept() -> None:
    """A student that is the teacher already stays as it is, and the note says so."""
    made = QUICK.apply(teacher(), bench())

    assert same(made.graph, teacher())
    assert not made.changed
    assert "training did not help" in made.notes[0]


def test_zeros_of_pruning_stay_zero() -> None:
    """From a quarter on; and everywhere, or nowhere, where it is asked for."""
    weak = damaged(teacher())
    kernel = weak.constants["conv.w"].copy()
    kernel[np.abs(kernel) < 0.5] = 0
    weak = replace(weak, constants={**weak.constants, "conv.w": kernel})

    kept = QUICK.apply(weak, bench())
    lost = replace(QUICK, keep_zeros="off").apply(weak, bench())

    zeros = kernel == 0
    assert 0.25 < zeros.mean() < 0.9
    np.testing.assert_array_equal(kept.graph.constants["conv.w"] == 0, zeros)
    assert kept.changed["conv.w"] == "trained, zeros kept"
    assert not (lost.graph.constants["conv.w"] == 0).any()


def test_codes_of_zero_stay_zero() -> None:
    """Integers that are trained as well: what a pruning step left out stays out."""
    weak = damaged(teacher())
    kernel = weak.constants["conv.w"].copy()
    kernel[np.abs(kernel) < 0.5] = 0
    weak = replace(weak, constants={**weak.constants, "conv.w": kernel})
    coded = QuantizeNetwork(bias_correction="none").apply(weak, bench()).graph
    (name,) = (n for n, a in coded.constants.items() if a.dtype == np.int8 and a.ndim == 4)

    made = QUICK.apply(coded, bench()).graph

    assert (made.constants[name] != coded.constants[name]).mean() > 0.3
    assert not made.constants[name][kernel == 0].any()


def test_frozen_constants_stay() -> None:
    """And the result says which pattern kept them."""
    weak = damaged(teacher())

    made = replace(QUICK, freeze=("conv.*",)).apply(weak, bench())

    assert made.kept == {"conv.w": "frozen by 'conv.*'", "conv.b": "frozen by 'conv.*'"}
    assert made.graph.constants["conv.w"] is weak.constants["conv.w"]
    assert "head.w" in made.changed


def test_scores_before_a_softmax_are_compared() -> None:
    """A teacher of probabilities teaches a student of scores, and the other way round."""
    strong, weak = teacher(softmax=True), damaged(teacher())

    made = QUICK.apply(weak, bench(strong))

    before, after = figures(made.notes[0])
    plain = QUICK.apply(weak, bench())
    assert (before, after) == figures(plain.notes[0])


def test_labels_teach_where_they_are_asked_for() -> None:
    """With labels alone, the training examples' classes are learned."""
    transform = replace(QUICK, alpha=1.0, held_out=0.0, steps=10)

    with pytest.raises(InputError, match="the examples have no labels"):
        transform.apply(damaged(teacher()), bench())
    made = transform.apply(damaged(teacher()), bench(calibration=pictures(labels=True)))
    other = replace(transform, alpha=0.0).apply(
        damaged(teacher()), bench(calibration=pictures(labels=True))
    )

    assert not same(made.graph, other.graph)
    too_many = replace(pictures(), labels=[7] * 24)
    with pytest.raises(InputError, match="a label is 7, the network's scores are"):
        transform.apply(damaged(teacher()), bench(calibration=too_many))


@pytest.mark.parametrize(("task", "unit"), [("text-embedding", "cosine"), ("features", "relative")])
def test_other_tasks_have_their_own_distance(task: str, unit: str) -> None:
    """Vectors by direction, plain arrays by squared error."""
    made = QUICK.apply(damaged(teacher()), bench(task=task))

    before, after = figures(made.notes[0])
    assert unit in made.notes[0]
    assert after < before / 2


def test_a_narrower_student_learns_features_through_a_matrix() -> None:
    """With `project` values may differ in width; without, the error says so."""
    student, transform = teacher(3, width=4), replace(QUICK, features=1.0, steps=60)

    with pytest.raises(InputError, match="no value inside teacher and student"):
        transform.apply(student, bench())
    made = replace(transform, project=True).apply(student, bench())

    before, after = figures(made.notes[0])
    assert after < before / 2
    assert set(made.graph.constants) == set(student.constants)


def test_features_can_be_named() -> None:
    """By one name, or two; and slips are said."""
    for names in (("r",), ("c:r",)):
        replace(QUICK, steps=2, features=1.0, feature_names=names).apply(
            damaged(teacher()), bench()
        )
    with pytest.raises(InputError, match="features: the student has no value 'nowhere'"):
        replace(QUICK, features=1.0, feature_names=("r:nowhere",)).apply(teacher(), bench())
    with pytest.raises(InputError, match=r"'g:r' is \('N', 6, 1, 1\) in the teacher"):
        replace(QUICK, features=1.0, feature_names=("g:r",)).apply(teacher(), bench())


def test_a_network_of_one_example_at_a_time_is_trained_as_well() -> None:
    """Its gradients are added up: the numbers are those of a whole batch."""
    alone = (Value(name="x", dtype=F32, shape=(1, 3, 8, 8)),)
    weak = damaged(teacher())

    made = QUICK.apply(replace(weak, inputs=alone), bench(replace(teacher(), inputs=alone)))
    whole = QUICK.apply(weak, bench())

    for name, array in whole.graph.constants.items():
        np.testing.assert_allclose(
            made.graph.constants[name].astype(float), array.astype(float), atol=2e-3
        )


def test_patience_ends_it() -> None:
    """A rate that is far too high gains nothing, and is not waited for."""
    transform = replace(QUICK, learning_rate=5.0, patience=1, judgements=10, warm_up=0.0)

    made = transform.apply(damaged(teacher(), by=0.01), bench())

    assert "after 3 steps" in made.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0, must be above 0"),
        ({"batch": 0}, "batch is 0, must be 1 or more"),
        ({"optimizer": "adam"}, "optimizer is 'adam', must be one of adamw, sgd"),
        ({"alpha": 1.5}, "alpha is 1.5, must be from 0 to 1"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"augment": "flip"}, "augment is 'flip', must be a list"),
        ({"augment": ("turn",)}, "augment: 'turn' is none of flip, crop, mixup"),
        ({"augment": ("mixup",), "alpha": 0.5}, "alpha and mixup exclude each other"),
        ({"clip": -1.0}, "clip is -1.0, must be 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(changes: Mapping[str, object], message: str) -> None:
    """Each by a sentence, before anything runs."""
    with pytest.raises(InputError, match=message):
        Distil(**changes)  # type: ignore[arg-type] # tests name the fields


def test_what_cannot_be_trained_is_said() -> None:
    """No examples, too few, nothing left, a pattern without a fit, no integers."""
    weak = damaged(teacher())
    with pytest.raises(InputError, match="distil needs examples"):
        QUICK.apply(weak, bench(calibration=Samples(feeds=[])))
    with pytest.raises(InputError, match="1 examples: too few to train on and to judge by"):
        QUICK.apply(weak, bench(calibration=pictures(1)))
    with pytest.raises(InputError, match="nothing is left to train"):
        replace(QUICK, freeze=("*",)).apply(weak, bench())
    with pytest.raises(InputError, match="'conf' fits no constant"):
        replace(QUICK, freeze=("conf",)).apply(weak, bench())
    with pytest.raises(InputError, match="no weights in integers"):
        replace(QUICK, quantized="on").apply(weak, bench())
    with pytest.raises(InputError, match="the gradient is no number; lower the learning rate"):
        replace(QUICK, optimizer="sgd", learning_rate=1e30, clip=0.0).apply(weak, bench())


def test_shapes_of_examples_are_never_mixed() -> None:
    """Batches hold one shape each; every example comes once in a round."""
    from onhand.host.networks.training.examples import Schedule

    feeds = [{"x": np.zeros((1, 2 + i % 3), dtype=np.float32)} for i in range(11)]
    schedule = Schedule(Samples(feeds=feeds), batch=2, seed=0)

    rounds = [[schedule.indices(r * schedule.n_batches + i) for i in range(schedule.n_batches)]
              for r in range(2)]  # fmt: skip

    for one in rounds:
        assert sorted(i for batch in one for i in batch) == list(range(11))
        assert all(len({i % 3 for i in batch}) == 1 for batch in one)
    assert rounds[0] != rounds[1]


def test_pictures_are_turned_in_either_layout() -> None:
    """Channels first or last: the same picture; what is no picture stays or is refused."""
    from onhand.host.networks.training.examples import augment

    first = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)
    made = [
        augment({"x": x, "n": np.zeros((2, 5))}, ("flip", "crop"), np.random.default_rng(3))
        for x in (first, first.transpose(0, 2, 3, 1))
    ]

    np.testing.assert_array_equal(made[0]["x"], made[1]["x"].transpose(0, 3, 1, 2))
    assert not np.array_equal(made[0]["x"], first)
    with pytest.raises(InputError, match="'crop' is for pictures"):
        augment({"ids": np.zeros((2, 5), dtype=np.int64)}, ("crop",), np.random.default_rng(3))
