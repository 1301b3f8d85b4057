"""Whole sessions of every method."""

import json

import numpy as np
import pytest
from tests.device.learning.methods.models import (
    HeadTeachable,
    LowRankTeachable,
    PerceptronTeachable,
    latents,
)
from tests.device.learning.methods.sessions import Values, batches, session, step
from tests.device.learning.models import TableTeachable

from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds, Teachable
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.choosing import METHODS, make_method
from onhand.device.learning.methods.growing import grow_head
from onhand.device.learning.methods.kept import Kept, Part
from onhand.device.learning.methods.options import MethodOptions

WIDTH = 6
SMALL = MethodOptions(
    memory_bytes=2**14, replayed=8, fisher_examples=16, ewc_strength=20.0, olora_rank=2, best=3
)


def method(name: str, teachable: Teachable, *, seed: int = 0) -> Method:
    """Return a method with small options."""
    return make_method(name, teachable.lesson, rng=np.random.default_rng(seed), options=SMALL)


def accuracy(teachable: Teachable, values: Values, data: Feeds) -> float:
    """Return how much of some data is answered rightly."""
    C = len(values["bias"])
    n = len(data["labels"])
    nothing = {name: np.zeros((n, C), np.float32) for name in ("past_logits", "past_classes")} | {
        name: np.zeros(n, np.float32) for name in ("past_weights", "soft_weights")
    }
    logits = teachable.teach(values, {**data, **nothing}).outputs["logits"]
    return float((logits.argmax(axis=1) == data["labels"]).mean())


def two_tasks(name: str) -> tuple[float, float]:
    """Return the accuracy on two old and on two new classes, after both were learned in turn."""
    teachable = PerceptronTeachable(WIDTH, 24, 2)
    chosen, values = method(name, teachable), teachable.start()
    tasks = [latents([0, 1] * 40, width=WIDTH), latents([2, 3] * 40, width=WIDTH, seed=1)]
    for i, data in enumerate(tasks):
        values = grow_head(teachable.lesson, values, 2 * i + 2)
        values = session(
            chosen,
            teachable,
            values,
            list(batches(data, 8, epochs=6, seed=i)),
            width=2 * i + 2,
            known=2 * i,
            rate=0.1,
        )
    old, new = latents([0, 1] * 50, width=WIDTH, seed=8), latents([2, 3] * 50, width=WIDTH, seed=9)
    return accuracy(teachable, values, old), accuracy(teachable, values, new)


def test_plain_training_forgets() -> None:
    """Else there would be nothing to protect from."""
    old, new = two_tasks("naive")

    assert old < 0.2
    assert new > 0.95


@pytest.mark.parametrize("name", ["replay", "der++", "er-ace", "replay+lwf"])
def test_replay_does_not_forget(name: str) -> None:
    """Within the same steps, and learns what is new as well."""
    old, new = two_tasks(name)

    assert old > 0.9
    assert new > 0.9


def test_prototypes_do_not_forget() -> None:
    """There is nothing in them that could."""
    teachable = HeadTeachable(WIDTH, 2)
    chosen, values = method("prototypes", teachable), teachable.start()
    for i, labels in enumerate(([0, 1], [2, 3])):
        values = grow_head(teachable.lesson, values, 2 * i + 2)
        data = latents(labels * 10, width=WIDTH, seed=i)
        given = list(batches(data, 8, epochs=1, seed=i))
        values = session(chosen, teachable, values, given, width=2 * i + 2)

    assert accuracy(teachable, values, latents([0, 1, 2, 3] * 30, width=WIDTH, seed=7)) > 0.95


def by_one_coordinate(place: int, *, misleading: int | None, seed: int) -> Feeds:
    """Return two classes told apart by one coordinate, another one saying the contrary."""
    rng = np.random.default_rng(seed)
    labels = np.arange(80) % 2
    x = 0.2 * rng.standard_normal((80, 4))
    x[:, place] += 2 * labels - 1
    if misleading is not None:
        x[:, misleading] -= 2 * labels - 1
    return {"latent": x.astype(np.float32), "labels": labels, "weights": np.ones(80, np.float32)}


def test_a_penalty_keeps_what_mattered_and_learns_elsewhere() -> None:
    """A new task that says the contrary of the old one, but can be told by something else too."""
    found = {}
    first = by_one_coordinate(0, misleading=None, seed=0)
    second = by_one_coordinate(1, misleading=0, seed=1)
    for name in ("naive", "ewc"):
        teachable = HeadTeachable(4, 2)
        chosen, values = method(name, teachable), teachable.start()
        for data in (first, second):
            given = list(batches(data, 8, epochs=15, seed=0))
            values = session(chosen, teachable, values, given, width=2, rate=0.1)
        found[name] = [accuracy(teachable, values, data) for data in (first, second)]

    assert found["naive"][0] < 0.5
    assert found["ewc"][0] > 0.95
    assert found["ewc"][1] > 0.8


def texts(seed: int) -> list[tuple[Feeds, bool]]:
    """Return batches of texts."""
    rng = np.random.default_rng(seed)
    made: list[tuple[Feeds, bool]] = []
    for i in range(6):
        tokens = rng.integers(0, 7, (2, 5))
        rows = np.array([0, 1, 2, 3, 5, 6, 7])
        batch = {
            "tokens": tokens,
            "rows": rows,
            "labels": tokens.reshape(-1)[rows + 1][:, None],
            "weights": np.full((7, 1), 1 / 7, np.float32),
        }
        made.append((batch, i < 4))
    return made


def setting(kind: str, name: str) -> tuple[Teachable, list[tuple[Feeds, bool]], int]:
    """Return a model, batches of a session, and the width."""
    if kind == "tokens":
        return TableTeachable(7), texts(1), 7
    data = latents([0, 1, 2] * 8, width=WIDTH)
    if "olora" in name:
        data["x"] = data.pop("latent")
        return LowRankTeachable(WIDTH, 3, 4), list(batches(data, 6, epochs=2, seed=0)), 3
    return HeadTeachable(WIDTH, 3), list(batches(data, 6, epochs=2, seed=0)), 3


CASES = [
    *[("classes", name) for name in METHODS],
    ("classes", "der+++lwf+ewc"),
    ("classes", "replay+olora"),
    *[("tokens", name) for name in ("naive", "replay", "der++", "lwf", "ewc", "der+++ewc+lwf")],
]


def reread(kept: Kept) -> Kept:
    """Return what another process would read from the disk."""
    return Kept(
        facts=json.loads(json.dumps(kept.facts)),
        parts={
            name: Part(part.revision, {n: array.copy() for n, array in part.arrays.items()})
            for name, part in kept.parts.items()
        },
    )


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_another_process_goes_on_as_if_nothing_had_happened(kind: str, name: str) -> None:
    """To the bit: in the second session, from its middle on, through its end."""
    teachable, given, width = setting(kind, name)
    chosen = method(name, teachable)
    values = session(chosen, teachable, teachable.start(), given, width=width)
    values = chosen.begin(teachable, values, width=width)
    for batch, first in given[:3]:
        values = step(chosen, teachable, values, batch, first=first, rate=0.2)
    other, others = method(name, teachable, seed=99), dict(values)
    other.load(reread(chosen.save()))
    for batch, first in given[3:]:
        values = step(chosen, teachable, values, batch, first=first, rate=0.2)
        others = step(other, teachable, others, batch, first=first, rate=0.2)
    values, others = chosen.end(teachable, values), other.end(teachable, others)

    for trainable, value in values.items():
        np.testing.assert_array_equal(others[trainable], value)
    assert json.dumps(other.save().facts) == json.dumps(chosen.save().facts)
    for part, kept in chosen.save().parts.items():
        assert other.save().parts[part].revision == kept.revision
        for array, value in kept.arrays.items():
            np.testing.assert_array_equal(other.save().parts[part].arrays[array], value)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_method_learns(kind: str, name: str) -> None:
    """The loss of what is learned becomes smaller, whatever is done for the rest."""
    teachable, given, width = setting(kind, name)
    chosen, plain = method(name, teachable), method("naive", teachable)

    def loss(values: Values) -> float:
        plain.begin(teachable, values, width=width)
        feeds = [plain.feeds(teachable, values, batch) for batch, _ in given]
        return sum(teachable.teach(values, one).loss for one in feeds)

    values = session(chosen, teachable, teachable.start(), given, width=width)

    assert loss(values) < loss(teachable.start()) - 0.01


def test_what_was_known_before_the_first_session_can_be_remembered() -> None:
    """Examples of it are replayed, and penalised for, from the first session on."""
    teachable = HeadTeachable(WIDTH, 3)
    chosen = method("replay+ewc", teachable)
    old = latents([0, 1, 2] * 4, width=WIDTH)
    values = {name: value + 1 for name, value in teachable.start().items()}
    chosen.remember(teachable, values, old, width=3)
    values = chosen.begin(teachable, values, width=3)
    batch = latents([2], width=WIDTH)

    assert len(chosen.feeds(teachable, values, batch)["labels"]) == 1 + 8
    moved = {name: value + np.float32(1) for name, value in values.items()}
    nothing = {name: np.zeros_like(value) for name, value in values.items()}
    assert np.abs(chosen.adjust(moved, nothing)["weight"]).max() > 0


def test_examples_that_are_seen_again_are_not_offered_again() -> None:
    """A memory samples examples, not how often a session looked at them."""
    teachable = HeadTeachable(WIDTH, 3)
    chosen = method("replay", teachable)
    data = latents([0, 1, 2] * 4, width=WIDTH)
    values = session(
        chosen, teachable, teachable.start(), list(batches(data, 6, epochs=5, seed=0)), width=3
    )

    assert values
    assert len(chosen.save().parts["memory"].arrays["slots.group"]) == 12


@pytest.mark.parametrize(
    ("kind", "name"),
    [("classes", "er-ace"), ("classes", "replay+lwf"), ("tokens", "replay+lwf")],
)
def test_what_is_replayed_counts_as_much_whatever_else_new_examples_are_taught(
    kind: str, name: str
) -> None:
    """Losses that are added to the new ones change nothing about the old ones."""
    teachable, given, width = setting(kind, name)
    batch, found = given[-1][0], []
    for one in ("replay", name):
        chosen, values = method(one, teachable), teachable.start()
        for known, _ in given[:2]:
            chosen.remember(teachable, values, known, width=width)
        values = chosen.begin(teachable, values, width=width)
        feeds = chosen.feeds(teachable, values, batch)
        n = len(batch["rows" if kind == "tokens" else "labels"])
        found.append(np.abs(feeds["weights"][n:]).sum())

    assert found[0] == pytest.approx(1, rel=1e-3)
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"name": "ewc"}, "the state is of method 'ewc'"),
        ({"width": -1}, "width is -1"),
        ({"session": 1.5}, "session is 1.5"),
        ({"generator": None}, "no generator"),
        ({"generator": {"bit_generator": "MT19937"}}, "generator is not valid"),
        ({"generator": {"bit_generator": "PCG64", "state": {"state": "x"}}}, "not valid"),
        ({"else": 1}, "unknown key 'else'"),
    ],
)
def test_attack_a_damaged_state_is_refused(changed: dict[str, object], why: str) -> None:
    """Nothing in it is taken for granted."""
    chosen = method("replay", HeadTeachable())
    kept = chosen.save()

    with pytest.raises(InputError, match=why):
        chosen.load(Kept(facts={**kept.facts, **changed}, parts=kept.parts))


def test_attack_a_state_without_its_parts_is_refused() -> None:
    """Or with those of another method."""
    chosen = method("replay", HeadTeachable())
    kept = chosen.save()

    with pytest.raises(InputError, match="not its own"):
        chosen.load(Kept(facts=kept.facts))
    with pytest.raises(InputError, match="not its own"):
        chosen.load(Kept(facts=kept.facts, parts={**kept.parts, "other": Part(0, {})}))


def test_more_classes_than_there_are_cannot_be_known() -> None:
    """It is said at once, not in the middle of a session."""
    with pytest.raises(InputError, match="4 of 3 classes"):
        method("lwf", HeadTeachable()).begin(
            HeadTeachable(), HeadTeachable().start(), width=3, known=4
        )


def test_what_merging_ranks_lost_is_told() -> None:
    """Nothing is lost in silence."""
    teachable = LowRankTeachable(WIDTH, 3, 4)
    data = latents([0, 1, 2] * 8, width=WIDTH)
    data["x"] = data.pop("latent")
    chosen, values = method("olora", teachable), teachable.start()
    told: list[tuple[str, ...]] = []
    for i in range(3):
        given = list(batches(data, 6, epochs=2, seed=i))
        values = session(chosen, teachable, values, given, width=3)
        told.append(chosen.notes)

    assert told[0] == told[1] == ()
    assert "merged into fewer" in told[2][0]
