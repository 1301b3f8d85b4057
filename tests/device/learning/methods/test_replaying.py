"""What replay puts in a batch."""

import numpy as np
import pytest
from tests.device.learning.methods.models import HeadTeachable, latents
from tests.device.learning.models import TableTeachable

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds
from onhand.device.learning.methods.batches import completed
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.replaying import Replaying

OPTIONS = MethodOptions(replayed=4, replay_weight=0.5, past_weight=0.25, precision="float32")


def drawn(seed: int, n_classes: int = 3) -> dict[str, FloatArray]:
    """Return values of a head."""
    rng = np.random.default_rng(seed)
    shapes = HeadTeachable(n_classes=n_classes).shapes
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def holding(
    batch: Feeds, values: dict[str, FloatArray], *, past: bool, options: MethodOptions = OPTIONS
) -> Replaying:
    """Return replay whose memory holds a batch."""
    teachable = HeadTeachable()
    replaying = Replaying(teachable.lesson, options, past=past)
    replaying.offer(
        teachable,
        values,
        batch,
        None,
        session=1,
        width=len(values["bias"]),
        rng=np.random.default_rng(0),
    )
    return replaying


def mixed(replaying: Replaying, batch: Feeds, values: dict[str, FloatArray]) -> Feeds:
    """Return a mixed batch."""
    return replaying.mixed(
        HeadTeachable(),
        values,
        completed(batch, width=len(values["bias"])),
        total=float(batch["weights"].sum()),
        width=len(values["bias"]),
        rng=np.random.default_rng(1),
    )


def test_a_replayed_batch_has_the_new_examples_first_and_the_old_by_their_labels() -> None:
    """The old count half as much as the new, together."""
    old, new = latents([0, 1, 2] * 4), latents([1, 1], seed=5)
    made = mixed(holding(old, drawn(0), past=False), new, drawn(1))

    assert len(made["labels"]) == 2 + 4
    np.testing.assert_array_equal(made["latent"][:2], new["latent"])
    assert made["weights"].tolist() == [0.5, 0.5, 0.125, 0.125, 0.125, 0.125]
    for row, label in zip(made["latent"][2:], made["labels"][2:], strict=True):
        place = int(np.flatnonzero((old["latent"] == row).all(axis=1))[0])
        assert old["labels"][place] == label
    assert not made["past_weights"].any()
    assert not made["soft_weights"].any()


def test_a_batch_of_dark_experience_has_three_parts() -> None:
    """New; drawn for their answers, with no label's weight; drawn again for their labels."""
    old, new, before = latents([0, 1, 2] * 4), latents([1, 1], seed=5), drawn(0)
    made = mixed(holding(old, before, past=True), new, drawn(1))

    np.testing.assert_allclose(made["weights"], [0.5] * 2 + [0] * 4 + [0.125] * 4)
    np.testing.assert_allclose(made["past_weights"], [0] * 2 + [0.0625] * 4 + [0] * 4)
    answered = made["latent"][2:6] @ before["weight"].T + before["bias"]
    # Kept in 16 bits.
    np.testing.assert_allclose(made["past_logits"][2:6], answered, rtol=1e-3, atol=1e-3)
    assert not np.array_equal(made["latent"][2:6], made["latent"][6:])


def test_answers_of_fewer_classes_pull_only_at_those() -> None:
    """The gradient of the mean squared difference over the classes that were answered."""
    old, before = latents([0, 1, 2] * 4), drawn(0)
    replaying = holding(old, before, past=True)
    grown = drawn(1, n_classes=5)
    made = mixed(replaying, latents([3], seed=5), grown)
    only = dict(made) | {"weights": np.zeros_like(made["weights"])}
    found = HeadTeachable().teach(grown, only).gradients["bias"]

    rows = made["latent"][1:5]
    apart = (rows @ grown["weight"].T + grown["bias"])[:, :3] - made["past_logits"][1:5, :3]
    expected = (0.25 / 4 * 2 / 3 * apart).sum(axis=0)
    np.testing.assert_allclose(found[:3], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[3:], 0, atol=1e-6)


def test_the_old_count_in_proportion_to_the_new() -> None:
    """A batch that was cut in two for want of memory gives the same sum."""
    old, new = latents([0, 1, 2] * 4), latents([1, 1])
    replaying = holding(old, drawn(0), past=False)
    half = dict(new) | {"weights": new["weights"] / 2}

    assert mixed(replaying, half, drawn(1))["weights"][2:].sum() == pytest.approx(0.25)


def test_an_empty_memory_adds_nothing() -> None:
    """As in the first steps of all."""
    replaying = Replaying(HeadTeachable().lesson, OPTIONS, past=True)
    made = mixed(replaying, latents([0, 1]), drawn(0))

    assert len(made["labels"]) == 2


def test_answers_are_asked_again_at_a_sessions_end() -> None:
    """Of that session's examples; those of earlier sessions keep what they were told."""
    old, first, last = latents([0, 1, 2] * 2), drawn(0), drawn(1)
    replaying = holding(old, first, past=True)
    before = [slot.item["past_logits"].copy() for slot in replaying.memory.slots]
    replaying.refresh(HeadTeachable(), last, session=2, width=3)
    kept = [slot.item["past_logits"].copy() for slot in replaying.memory.slots]
    replaying.refresh(HeadTeachable(), last, session=1, width=3)

    np.testing.assert_array_equal(kept, before)
    for slot in replaying.memory.slots:
        answered = slot.item["latent"] @ last["weight"].T + last["bias"]
        np.testing.assert_allclose(slot.item["past_logits"], answered, rtol=1e-3, atol=2e-3)


def test_latents_are_kept_in_eight_bits_and_answers_in_sixteen() -> None:
    """A quarter and a half of what they were."""
    options = MethodOptions(precision="uint8")
    item = holding(latents([0, 1]), drawn(0), past=True, options=options).memory.slots[0].item

    assert item["latent"].dtype == np.uint8
    assert item["past_logits"].dtype == np.float16


def texts(seed: int, n: int, length: int) -> dict[str, np.ndarray]:
    """Return texts whose every token but the last is scored."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 9, (n, length))
    rows = np.concatenate([np.arange(length - 1) + i * length for i in range(n)])
    return {
        "tokens": tokens,
        "rows": rows,
        "labels": tokens.reshape(-1)[rows + 1][:, None],
        "weights": np.full((len(rows), 1), 1 / len(rows), np.float32),
    }


@pytest.mark.parametrize("past", [False, True])
def test_texts_are_replayed_behind_the_new_ones(past: bool) -> None:
    """Every row scores the token that follows it; each kind counts what it was told to."""
    teachable = TableTeachable(9)
    table = {"table": np.random.default_rng(0).standard_normal((9, 9)).astype(np.float32)}
    options = MethodOptions(replayed=2, replay_weight=0.5, past_weight=0.25, best=3)
    replaying = Replaying(teachable.lesson, options, past=past)
    rng = np.random.default_rng(0)
    replaying.offer(teachable, table, texts(1, 3, 6), None, session=1, width=9, rng=rng)
    new = texts(2, 2, 4)
    made = replaying.mixed(teachable, table, new, total=1.0, width=9, rng=rng)

    n_new = 6
    # As long as the longer: a text without its last token, which is no row.
    assert made["tokens"].shape == (4 + 2 * past, 5)
    weights = np.abs(made["weights"]).sum(axis=1)
    assert weights[:n_new].sum() == pytest.approx(1)
    labelled = weights[-10:]
    assert labelled.sum() == pytest.approx(0.5, rel=1e-3)
    before = made["tokens"].reshape(-1)[made["rows"]]
    np.testing.assert_array_equal(before[:n_new], new["tokens"][:, :-1].reshape(-1))
    if past:
        middle = slice(n_new, n_new + 10)
        assert weights[middle].sum() == pytest.approx(0.25, rel=1e-3)
        best = np.argsort(-table["table"][before[middle]], axis=1)[:, :3]
        np.testing.assert_array_equal(made["labels"][middle], best)


def test_a_memory_balances_texts_over_sessions() -> None:
    """A long session does not push a short one out."""
    teachable = TableTeachable(9)
    replaying = Replaying(teachable.lesson, MethodOptions(memory_bytes=4000), past=False)
    rng = np.random.default_rng(0)
    for session, n in ((1, 10), (2, 200)):
        replaying.offer(
            teachable, {}, texts(session, n, 6), None, session=session, width=9, rng=rng
        )
    found = replaying.memory.counts()

    assert found[1] == 10
    assert found[2] >= 10


def test_a_memory_of_another_method_is_refused() -> None:
    """Examples without answers are no use where answers are wanted."""
    kept = holding(latents([0]), drawn(0), past=False).save()

    with pytest.raises(InputError, match="no 'past_logits'"):
        Replaying(HeadTeachable().lesson, OPTIONS, past=True).load(kept)


def test_attack_a_label_in_the_memory_that_no_class_has() -> None:
    """A damaged memory is not fed to a graph."""
    replaying = holding(latents([0, 1, 2]), drawn(0), past=False)
    for slot in replaying.memory.slots:
        slot.item["labels"][...] = 7

    with pytest.raises(InputError, match="there are 3 classes"):
        mixed(replaying, latents([0]), drawn(0))
