"""Preferences: their losses, the batches they come in, and answers that get likelier."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.learning.models import LinearTeachable, TableTeachable

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds, Values
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.choosing import make_method
from onhand.device.learning.methods.preferences import PreferenceMethod, text_logprobs
from onhand.device.learning.optimizers import Sgd
from onhand.device.learning.preference_feeds import TEXTS, OpinionSource, PairSource
from onhand.device.learning.preferences import Preferring, by_opinions, by_pairs
from onhand.device.learning.schedules import Schedule
from onhand.device.learning.text_feeds import TokenSequence
from onhand.device.learning.trainer import Trainer
from onhand.device.learning.training import Plan

V = 6
logprobs = st.lists(st.floats(-30, 0), min_size=4, max_size=4)


def text(*tokens: int, prompt: int = 1) -> TokenSequence:
    """Tokens, all learned behind the prompt."""
    return TokenSequence(np.array(tokens), np.arange(prompt, len(tokens)))


PAIRS = PairSource(texts=(text(0, 1, 2), text(0, 2, 1, 3), text(4, 5), text(4, 3, 3)))
OPINIONS = OpinionSource(
    texts=(text(0, 1, 2), text(4, 3, 3), text(0, 3, 3), text(4, 1, 2)), liked=(True, False)
)


def naive() -> Method:
    """A method that adds nothing."""
    lesson = TableTeachable(V).lesson
    return make_method("naive", lesson, rng=np.random.default_rng(0))


def anywhere(seed: int = 0) -> dict[str, FloatArray]:
    """Values somewhere."""
    rng = np.random.default_rng(seed)
    return {"table": rng.standard_normal((V, V)).astype(np.float32)}


@given(found=logprobs, before=logprobs, smoothing=st.floats(0, 0.4), imitation=st.floats(0, 2))
def test_slopes_of_pairs_are_those_of_the_loss(
    found: list[float], before: list[float], smoothing: float, imitation: float
) -> None:
    """A small change of a text's log-probability changes the loss as its slope says."""
    how = Preferring(beta=0.3, smoothing=smoothing, imitation=imitation)
    lengths = np.array([3, 4, 1, 2])
    at, known = (np.array(values, dtype=np.float32) for values in (found, before))
    judged = by_pairs(at, known, lengths, how)

    for i in range(4):
        step = np.zeros(4, dtype=np.float32)
        step[i] = 0.5
        up, down = (by_pairs(at + s, known, lengths, how) for s in (step, -step))
        slope = float((up.losses.astype(float) - down.losses).sum())
        # A step of 1 over a curve whose third derivative is under beta^3 / 10.
        assert judged.slopes[i] == pytest.approx(slope, abs=2e-3)


@given(found=logprobs, before=logprobs, drift=st.floats(-5, 5))
def test_slopes_of_opinions_are_those_of_the_loss(
    found: list[float], before: list[float], drift: float
) -> None:
    """As for pairs, the drift being held."""
    how = Preferring(beta=0.3, liked=1.5, disliked=0.5)
    liked = np.array([True, False, True, False])
    at, known = (np.array(values, dtype=np.float32) for values in (found, before))
    judged = by_opinions(at, known, liked, how, drift=drift)

    for i in range(4):
        step = np.zeros(4, dtype=np.float32)
        step[i] = 0.5
        up, down = (by_opinions(at + s, known, liked, how, drift=drift) for s in (step, -step))
        slope = float((up.losses.astype(float) - down.losses).sum())
        assert judged.slopes[i] == pytest.approx(slope, abs=2e-3)


def test_a_pair_by_hand() -> None:
    """Nothing has moved yet: the loss is log 2, and both texts pull with beta / 2."""
    before = np.array([-3.0, -5.0])
    judged = by_pairs(before, before, np.array([2, 2]), Preferring(beta=0.1))

    assert judged.losses == pytest.approx([np.log(2)])
    assert judged.slopes == pytest.approx([-0.05, 0.05])


@pytest.mark.parametrize("source", [PAIRS, OPINIONS], ids=["dpo", "kto"])
def test_the_graph_gets_the_weights_of_the_formula(source: PairSource | OpinionSource) -> None:
    """Gradients through the weighted sum are those that PyTorch finds for the formula itself."""
    torch = pytest.importorskip("torch")
    teachable, how = TableTeachable(V), Preferring(beta=0.5, imitation=0.2, disliked=1.3)
    start, values = anywhere(1), anywhere(2)
    method = PreferenceMethod(naive(), source, how)
    method.begin(teachable, start, width=V)
    batch = source.feeds([0, 1], scale=0.5)
    gradient = teachable.teach(values, method.feeds(teachable, values, batch)).gradients["table"]

    table = torch.tensor(values["table"], requires_grad=True)

    def likely(weights: Any, one: TokenSequence) -> Any:
        logs = weights.log_softmax(-1)
        return sum(logs[one.tokens[i - 1], one.tokens[i]] for i in one.learned)

    old = [likely(torch.tensor(start["table"]), one) for one in source.texts]
    new = [likely(table, one) for one in source.texts]
    if isinstance(source, PairSource):
        loss = sum(
            -torch.nn.functional.logsigmoid(how.beta * (new[i] - old[i] - new[i + 1] + old[i + 1]))
            - how.imitation * new[i] / len(source.texts[i].learned)
            for i in (0, 2)
        )
    else:
        drift = ((new[2] - old[2] + new[3] - old[3]) / 2).detach().clamp(min=0)
        loss = 1 - torch.sigmoid(how.beta * (new[0] - old[0] - drift))
        loss = loss + how.disliked * (1 - torch.sigmoid(how.beta * (drift - new[1] + old[1])))
    (loss / 2).backward()
    np.testing.assert_allclose(gradient, table.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("source", [PAIRS, OPINIONS], ids=["dpo", "kto"])
def test_what_was_liked_gets_likelier(source: PairSource | OpinionSource) -> None:
    """After training, rewards tell liked answers from the others."""
    teachable = TableTeachable(V)
    method = PreferenceMethod(naive(), source, Preferring(beta=0.5))
    plan = Plan(n_steps=60, batch=2, optimizer=Sgd(), schedule=Schedule(rate=0.3))
    trained = Trainer(teachable, source, plan, method=method, width=V).run().training

    liked, other = (0, 1) if isinstance(source, OpinionSource) else (2, 3)
    batch = source.feeds([0, 1], scale=1.0)
    plain = {name: array for name, array in batch.items() if name != TEXTS}
    before, after = (
        text_logprobs(teachable, values, plain) for values in (teachable.start(), trained.values)
    )
    assert after[liked] > before[liked] + 1
    assert after[other] < before[other] - 1
    assert method.preferred is not None
    assert method.preferred.margin > 1
    assert method.preferred.right == 1.0


def test_references_are_kept_from_one_process_to_the_next() -> None:
    """A method that was loaded weighs a batch as the one that was saved."""
    teachable, values = TableTeachable(V), anywhere(3)
    first = PreferenceMethod(naive(), PAIRS, Preferring())
    first.begin(teachable, anywhere(4), width=V)
    second = PreferenceMethod(naive(), PAIRS, Preferring())
    second.load(first.save())
    batch = PAIRS.feeds([1], scale=1.0)

    expected = first.feeds(teachable, values, batch)["weights"]
    np.testing.assert_array_equal(second.feeds(teachable, values, batch)["weights"], expected)


def test_a_state_of_other_texts_is_refused() -> None:
    """As many references as texts, or none at all."""
    method = PreferenceMethod(naive(), OPINIONS, Preferring())
    other = PreferenceMethod(naive(), PairSource(texts=PAIRS.texts[:2]), Preferring())
    other.begin(TableTeachable(V), anywhere(), width=V)

    with pytest.raises(InputError, match="learn anew"):
        method.load(other.save())


class Offered:
    """Keeps what it is given to remember, and does nothing else."""

    name, trains = "offered", True

    def begin(self, teachable: object, values: Values, **_: object) -> Values:
        """Nothing."""
        return values

    def after(
        self, teachable: object, values: Values, batch: Feeds, *_: object, first: bool
    ) -> None:
        """Keep the batch."""
        self.batch = batch


def test_disliked_answers_are_not_remembered() -> None:
    """A memory is offered liked answers alone: all others count nothing there."""
    inner = Offered()
    method = PreferenceMethod(inner, PAIRS, Preferring())  # type: ignore[arg-type] # half a one
    teachable, values = TableTeachable(V), anywhere()
    method.begin(teachable, values, width=V)
    batch = PAIRS.feeds([0], scale=1.0)
    method.after(teachable, values, batch, teachable.teach(values, batch))

    # The liked answer has two tokens, the other three.
    assert inner.batch["weights"].ravel().tolist() == [1, 1, 0, 0, 0]


def test_a_classifier_learns_no_preferences() -> None:
    """The reason is said."""
    method = PreferenceMethod(naive(), PAIRS, Preferring())
    teachable = LinearTeachable()

    with pytest.raises(InputError, match="language models"):
        method.begin(teachable, teachable.start(), width=3)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"smoothing": 0.5}, {"liked": float("nan")}])
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    """Each setting says its range."""
    with pytest.raises(InputError, match="must be from"):
        Preferring(**options)


def test_a_batch_without_preferences_is_refused() -> None:
    """Batches of another source have no numbers of texts."""
    method = PreferenceMethod(naive(), PAIRS, Preferring())
    teachable, values = TableTeachable(V), anywhere()
    method.begin(teachable, values, width=V)
    batch = {name: a for name, a in PAIRS.feeds([0], scale=1.0).items() if name != TEXTS}

    with pytest.raises(InputError, match="no liked"):
        method.feeds(teachable, values, batch)
