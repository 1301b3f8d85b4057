"""A step that ends in tokens, in an engine that only scores."""

from collections.abc import Sequence

import numpy as np
import pytest

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import InputError
from onhand.device.engines.base import Session
from onhand.device.engines.choosing import step_sample_of
from onhand.device.sampling import Sampler, Sampling


class Scores:
    """Weights that score a row by its last token, which is the likeliest to come again."""

    vocab_size, context = 8, 8

    def session(self, *, context: int | None = None) -> Session:
        """See `Loaded`."""
        raise NotImplementedError

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        return np.stack([np.eye(8, dtype=np.float32)[row[-1]] for _, row in batch])

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Loaded`."""


class Anyone:
    """A session that nothing is asked of."""

    length, context = 0, 8

    def rewind(self, length: int) -> None:
        """See `Session`."""

    def fork(self) -> Session:
        """See `Session`."""
        return self

    def save_state(self) -> bytes:
        """See `Session`."""
        return b""

    def load_state(self, state: bytes) -> None:
        """See `Session`."""

    def close(self) -> None:
        """See `Session`."""


def batch(*tokens: int) -> list[tuple[Session, TokenArray]]:
    return [(Anyone(), np.asarray([token])) for token in tokens]


def test_scores_are_chosen_by_row_by_row() -> None:
    """Each by its own sampler; none where nothing is to be chosen."""
    step_sample = step_sample_of(Scores())
    penalised = Sampler(Sampling(repetition_penalty=2.0), seen=[5])

    found = step_sample(batch(3, 4, 5), [Sampler(Sampling()), None, penalised])

    assert found == [3, -1, 5]
    assert penalised.seen_since(0) == [5]
    assert penalised.seen_since(1) == []


def test_samplers_match_the_rows() -> None:
    """One for each row, and none twice."""
    step_sample, sampler = step_sample_of(Scores()), Sampler(Sampling())

    with pytest.raises(InputError, match="1 samplers for 2 rows"):
        step_sample(batch(1, 2), [sampler])
    with pytest.raises(InputError, match="given twice"):
        step_sample(batch(1, 2), [sampler, sampler])
