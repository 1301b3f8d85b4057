"""A smaller model learns from the original: less divergence, the same bytes when resumed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.host.recorder import Recorder
from tests.models import DECODER, VOCAB, memory_model

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import InputError, ResourceError, SourceError
from onhand.core.quantized import GroupFormat
from onhand.host import recover
from onhand.host.lessons import TextLessons, pad_rows
from onhand.host.model import Model
from onhand.host.prune_decoder import Kept, LayerKept, prune_decoder
from onhand.host.recover import Recovered, Training, recover_model
from onhand.host.rounding import round_matrix
from onhand.host.stored_model import has_model, read_model, write_model
from onhand.host.torch_weights import rounded_through

pytest.importorskip("torch", reason="trains weights")

TEXT = list(np.random.default_rng(5).integers(0, VOCAB, (130, 24)))


def smaller(model: Model) -> Model:
    """Half of the neurons."""
    full = Kept.everything(model.decoder)
    layers = tuple(
        LayerKept(source=layer.source, groups=layer.groups, neurons=layer.neurons[::2])
        for layer in full.layers
    )
    return prune_decoder(model, replace(full, layers=layers))


def trained(
    folder: Path,
    *,
    teacher: Model | None = None,
    student: Model | None = None,
    training: Training | None = None,
    progress: Recorder | None = None,
    text: Sequence[TokenArray] = TEXT,
    forms: Mapping[str, GroupFormat] | None = None,
) -> Recovered:
    """A short training."""
    teacher = teacher or memory_model()
    return recover_model(
        teacher,
        student or smaller(teacher),
        TextLessons(sequences=text[2:], batch_tokens=240),
        [pad_rows(text[:2])],
        training=training or Training(steps=12, rate=1e-3, precision="float32"),
        folder=folder,
        threads=1,
        progress=progress or Recorder(),
        forms=forms,
    )


@pytest.mark.parametrize(
    "training",
    [
        Training(steps=12, rate=1e-3, precision="float32"),
        Training(steps=12, rate=1e-3, precision="bf16", temperature=2.0),
        Training(steps=12, rate=1e-3, precision="float32", hidden=1.0, decay=0.01),
    ],
    ids=["plain", "bf16, hot", "hidden states"],
)
def test_training_brings_the_answers_nearer(tmp_path: Path, training: Training) -> None:
    """On text that was left out of it; every stage goes from its beginning to its end."""
    shown = Recorder()

    found = trained(tmp_path, training=training, progress=shown)

    assert found.after < 0.97 * found.before
    assert found.n_tokens == 12 * 10 * 24
    assert shown.stages == ["distilling"]
    assert shown.done == shown.total
    assert found.model.decoder == smaller(memory_model()).decoder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]


@settings(max_examples=30, deadline=None)
@given(
    weight=arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 70)),
        elements=st.floats(-3, 3, width=16),
    ),
    bits=st.sampled_from(GroupFormat.BITS),
    group_size=st.sampled_from(GroupFormat.GROUP_SIZES),
)
def test_rounding_in_training_is_the_rounding_that_is_stored(
    weight: FloatArray, bits: int, group_size: int
) -> None:
    """To the last bit; the gradient is that of the weights; storing it again changes nothing."""
    import torch

    form = GroupFormat(bits=bits, group_size=group_size)
    given_weight = torch.from_numpy(weight).requires_grad_()

    found = rounded_through(given_weight, form)
    torch.autograd.backward((found * 3).sum())

    stored = found.detach().numpy()
    for method in ("rtn", "clip"):
        again = stored if method == "clip" else weight
        rounded = round_matrix(again, form, method=method).tensor.dequantize()
        np.testing.assert_array_equal(rounded, stored)
    assert given_weight.grad is not None
    assert (given_weight.grad == 3).all()


def test_a_model_learns_with_the_weights_that_are_stored(tmp_path: Path) -> None:
    """Better than the same weights rounded at the end; what comes back is rounded already."""
    model = memory_model()
    forms = {name: GroupFormat(bits=3) for name in model.decoder.matrices()}
    training = Training(steps=24, rate=1e-3, precision="float32")

    found = trained(tmp_path / "a", student=model, forms=forms, training=training)

    assert found.after < 0.9 * found.before
    for name, form in forms.items():
        weight = found.model.weights.matrix(name)
        codes = round_matrix(weight, form, method="rtn").tensor
        np.testing.assert_array_equal(codes.dequantize(), weight)


def test_a_resumed_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the middle, it goes on from the last checkpoint."""
    whole = trained(tmp_path / "whole")
    monkeypatch.setattr(recover, "_SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", progress=Recorder("distilling", after=7))
    again = Recorder("distilling", after=5)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", progress=again)
    resumed = trained(tmp_path / "again")

    assert again.done > 7
    assert resumed == replace(whole, model=resumed.model)
    for name in whole.model.decoder.matrices():
        np.testing.assert_array_equal(
            whole.model.weights.matrix(name), resumed.model.weights.matrix(name)
        )


def test_what_does_not_help_is_not_taken(tmp_path: Path) -> None:
    """Nothing can be nearer than the original itself."""
    model = memory_model()

    found = trained(tmp_path, teacher=model, student=model)

    assert found.model is model
    assert found.before == found.after
    assert found.after < 1e-6
    assert not has_model(tmp_path)


def test_training_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Each in one sentence, before any step."""
    model = memory_model()
    narrow = prune_decoder(model, replace(Kept.everything(DECODER), channels=np.arange(32)))
    other = memory_model(replace(DECODER, vocab_size=VOCAB + 8))
    with pytest.raises(InputError, match="other vocabularies"):
        trained(tmp_path, student=other)
    with pytest.raises(InputError, match=r"widths differ \(64 and 32\)"):
        trained(tmp_path, student=narrow, training=Training(steps=1, hidden=1.0))
    for wrong in ({"steps": 0}, {"rate": 0.0}, {"temperature": -1.0}, {"warm_up": 1.0}):
        with pytest.raises(InputError, match="must be"):
            Training(**{"steps": 1, **wrong})  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(InputError, match="precision is 'int8', must be one of auto"):
        Training(steps=1, precision="int8")


def test_training_that_diverges_is_said(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(InputError, match=r"diverged at step \d+: take a smaller rate"):
        trained(tmp_path, training=Training(steps=40, rate=1e9, precision="float32"))


def test_the_rate_rises_and_falls() -> None:
    """From next to nothing to the whole, and along a cosine to the last."""
    training = Training(steps=100, warm_up=0.1, last=0.1)
    shares = [training.share(step) for step in range(100)]

    top = int(np.argmax(shares))
    assert 8 <= top <= 11
    assert shares[0] < 0.15
    assert 0.1 < shares[-1] < 0.11
    assert shares == sorted(shares[: top + 1]) + sorted(shares[top + 1 :], reverse=True)


def test_lessons_take_every_sequence_once_a_round() -> None:
    """In another order each time; the same step gives the same rows."""
    lessons = TextLessons(sequences=TEXT[:6], batch_tokens=48)

    rounds = [[lessons.batch(3 * turn + i)[0] for i in range(3)] for turn in range(2)]

    for found in rounds:
        assert sorted(map(tuple, np.concatenate(found))) == sorted(map(tuple, TEXT[:6]))
    assert not np.array_equal(rounds[0], rounds[1])
    np.testing.assert_array_equal(lessons.batch(4)[0], rounds[1][1])
    with pytest.raises(InputError, match="no text to train on"):
        TextLessons(sequences=[])


def test_shorter_sequences_are_filled_with_what_does_not_count() -> None:
    """The same divergence as of each alone: nothing is learnt from what was filled in."""
    tokens, weights = pad_rows([TEXT[0], TEXT[1][:5]])

    assert tokens.shape == weights.shape == (2, 24)
    assert weights.sum(axis=1).tolist() == [24, 5]
    np.testing.assert_array_equal(tokens[1, :5], TEXT[1][:5])


def test_a_stored_model_is_the_same(tmp_path: Path) -> None:
    """Every way of reading; another model's file, or half a file, is refused."""
    model = smaller(memory_model())
    told: list[float] = []

    stored = write_model(tmp_path / "m", model, advance=told.append)

    assert sum(told) == model.decoder.n_parameters
    assert stored.decoder == read_model(tmp_path / "m", model).decoder == model.decoder
    for name in model.decoder.matrices():
        np.testing.assert_array_equal(stored.weights.matrix(name), model.weights.matrix(name))
        np.testing.assert_array_equal(
            stored.weights.block(name, 1, 3), model.weights.block(name, 1, 3)
        )
    np.testing.assert_array_equal(
        stored.weights.rows("embed", TEXT[0]), model.weights.rows("embed", TEXT[0])
    )
    weights = tmp_path / "m" / "weights.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-4], b"", whole[:20]):
        weights.write_bytes(damaged)
        with pytest.raises(ResourceError, match="is damaged; remove"):
            read_model(tmp_path / "m", model)
    (tmp_path / "m" / "model.json").write_text("{}")
    with pytest.raises(ResourceError, match="is damaged"):
        read_model(tmp_path / "m", model)


def test_a_model_of_no_numbers_is_not_stored(tmp_path: Path) -> None:
    """Nor taken for a finished one."""
    tensors: dict[str, FloatArray] = {
        name: memory_model().weights.matrix(name) for name in DECODER.matrices()
    }
    tensors |= {name: np.full(64, np.nan, np.float32) for name in DECODER.vectors()}

    with pytest.raises(SourceError, match="of the changed model holds a NaN"):
        write_model(tmp_path / "m", memory_model(tensors=tensors))

    assert not has_model(tmp_path / "m")
