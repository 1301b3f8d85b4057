"""Replay: examples from a memory are learned again beside the new ones, and their old answers kept.

With past answers this is DER++: of three parts of a batch, the first are the new examples, the
second are drawn for their past answers alone, the third are drawn again for their labels. Past
answers of a network are its logits; of a language model, the chances of its likeliest tokens,
which its graph takes as more labels.

Source:
    Experience replay: Chaudhry et al. 2019, arXiv:1902.10486; dark experience replay: Buzzega et
    al. 2020, arXiv:2004.07211; latents in place of inputs: Pellegrini et al. 2020,
    arXiv:1912.01100.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.memory.arrays import memory_of, read_memory
from onhand.device.learning.memory.coding import coded, decoded
from onhand.device.learning.memory.store import Item, Memory
from onhand.device.learning.methods.batches import (
    check_batch,
    completed,
    groups_of,
    join_examples,
    join_texts,
    n_examples,
    split,
    stacked,
)
from onhand.device.learning.methods.kept import Part
from onhand.device.learning.methods.options import MethodOptions
from onhand.device.learning.methods.soft import best_tokens, logits_of

__all__ = ["Replaying"]

_AT_ONCE: Final = 32
_BESIDE: Final = ("labels", "weights", "past_logits", "best", "chances", "session")
"""What stands beside an example's inputs in the memory."""


class Replaying:
    """The memory, and what is drawn from it.

    Args:
        lesson: what is learned.
        options: of the memory, and what drawn examples count.
        past: whether past answers are kept and learned from (DER++).
    """

    def __init__(self, lesson: Lesson, options: MethodOptions, *, past: bool) -> None:
        self._lesson, self._options, self._past = lesson, options, past
        self.memory = Memory(options.memory_bytes, balanced=options.balanced)
        # Answers have outliers: 8 bits of their range would lose the others.
        self._beside = "float32" if options.precision == "float32" else "float16"

    def offer(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        session: int,
        width: int,
        rng: np.random.Generator,
    ) -> None:
        """Offer a batch to the memory.

        Args:
            teachable: the lesson.
            values: that `taught` was made with.
            batch: new examples.
            taught: what the run gave whose first examples are these; None where there was none.
            session: number of this session, from 1; 0 for what was known before the first.
            width: classes, or tokens of the vocabulary.
            rng: draws each example's priority.

        Raises:
            InputError: if an example cannot be kept.
            EngineError: if the lesson's graph fails.
        """
        groups = groups_of(self._lesson, batch, session=session)
        logits = None
        if self._past and self._lesson.feeds == "classes":
            logits = (
                logits_of(teachable, values, batch, width=width)
                if taught is None
                else taught.outputs["logits"][: n_examples(self._lesson, batch)]
            )
        for i, item in enumerate(split(self._lesson, batch)):
            priority = rng.random()
            if item is None or priority >= self.memory.ceiling(groups[i]):
                continue
            added: dict[str, np.ndarray] = {"session": np.array(session, np.int64)}
            if logits is not None:
                added["past_logits"] = np.array(logits[i], np.float32)
            elif self._past:
                added |= self._best(teachable, values, item, width=width)
            self.memory.offer(self._small({**item, **added}), groups[i], priority)

    def mixed(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        *,
        total: float,
        width: int,
        rng: np.random.Generator,
    ) -> Feeds:
        """Return a batch with what was drawn from the memory after it.

        Args:
            teachable: the lesson.
            values: of every trainable, as they are now.
            batch: complete.
            total: what the new examples count, before anything was added to their losses.
            width: classes, or tokens of the vocabulary.
            rng: draws.

        Raises:
            InputError: if what is kept does not fit the lesson.
            EngineError: if the lesson's graph fails.
        """
        wanted = self._options.replayed or n_examples(self._lesson, batch)
        past = self._drawn(wanted, rng) if self._past and self._options.past_weight else []
        labelled = self._drawn(wanted, rng) if self._options.replay_weight else []
        if self._lesson.feeds == "tokens":
            return self._texts(batch, past, labelled, total=total, width=width)
        parts: list[Feeds] = [batch]
        if past:
            parts.append(self._remembered(teachable, values, past, total, width))
        if labelled:
            again = completed(join_examples([_inputs_of(item) for item in labelled]), width=width)
            weight = total * self._options.replay_weight / len(labelled)
            parts.append(again | {"weights": np.full(len(labelled), weight, np.float32)})
        mixed = stacked(parts)
        check_batch(self._lesson, mixed, width=width)
        return mixed

    def refresh(self, teachable: Teachable, values: Values, *, session: int, width: int) -> None:
        """Ask again for the answers about this session's examples, now that they are learned.

        Args:
            teachable: the lesson.
            values: of every trainable.
            session: whose examples.
            width: classes, or tokens of the vocabulary.

        Raises:
            InputError: if what is kept does not fit the lesson.
            EngineError: if the lesson's graph fails.
        """
        if not self._past or not self._options.refreshes:
            return
        mine = [
            place
            for place, slot in enumerate(self.memory.slots)
            if int(slot.item["session"]) == session
        ]
        for first in range(0, len(mine), _AT_ONCE):
            places = mine[first : first + _AT_ONCE]
            items = [decoded(self.memory.slots[place].item) for place in places]
            if self._lesson.feeds == "tokens":
                answers = [self._best(teachable, values, item, width=width) for item in items]
            else:
                batch = join_examples([_inputs_of(item) for item in items])
                logits = logits_of(teachable, values, batch, width=width)
                answers = [{"past_logits": np.array(row, np.float32)} for row in logits]
            for place, answer in zip(places, answers, strict=True):
                kept = dict(self.memory.slots[place].item)
                kept |= coded(answer, self._beside)
                self.memory.replace(place, kept)
        self.memory.shrink()

    def save(self) -> Part:
        """Return the memory."""
        return Part(self.memory.revision, memory_of(self.memory))

    def load(self, part: Part) -> None:
        """Take on what `save` gave.

        Raises:
            InputError: if it is not valid, or keeps other things than this method needs.
        """
        memory = read_memory(
            part.arrays, budget_bytes=self._options.memory_bytes, balanced=self._options.balanced
        )
        for slot in memory.slots[:1]:
            needed = {"labels", "session"} | self._needed()
            if missing := sorted(needed - set(slot.item)):
                raise InputError(f"the memory's examples have no {missing[0]!r}: another method's")
        memory.revision = part.revision
        self.memory = memory

    def _needed(self) -> set[str]:
        if self._lesson.feeds == "classes":
            return {"past_logits"} if self._past else set()
        return {"tokens", "rows", "weights"} | ({"best", "chances"} if self._past else set())

    def _small(self, item: Item) -> dict[str, np.ndarray]:
        """Return an example as it is kept: its inputs as told, the rest in 16 bits at least."""
        inputs = {name: array for name, array in item.items() if name not in _BESIDE}
        beside = {name: array for name, array in item.items() if name in _BESIDE}
        return coded(inputs, self._options.precision) | coded(beside, self._beside)

    def _drawn(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [decoded(self.memory.slots[place].item) for place in self.memory.draw(n, rng)]

    def _best(
        self, teachable: Teachable, values: Values, item: Item, *, width: int
    ) -> dict[str, np.ndarray]:
        batch = join_texts([(item, item["labels"], item["weights"])])
        best, chances = best_tokens(teachable, values, batch, best=self._options.best, width=width)
        return {"best": best, "chances": chances}

    def _remembered(
        self, teachable: Teachable, values: Values, items: Sequence[Item], total: float, width: int
    ) -> Feeds:
        """Return examples that count by their past logits.

        Raises:
            InputError: if they are of more classes than there are.
        """
        feeds = completed(join_examples([_inputs_of(item) for item in items]), width=width)
        past = np.zeros((len(items), width), np.float32)
        sizes = np.array([len(item["past_logits"]) for item in items])
        if sizes.max() > width:
            raise InputError(
                f"the memory's answers are of {sizes.max()} classes, there are {width}"
            )
        if sizes.min() < width:
            # A class that came later pulls nowhere: its own logit now is what is wanted.
            past[:] = logits_of(teachable, values, feeds, width=width)
        for row, item in zip(past, items, strict=True):
            row[: len(item["past_logits"])] = item["past_logits"]
        # The graph takes the mean over all classes; the mean over those once answered is meant.
        weights = total * self._options.past_weight / len(items) * width / sizes
        return feeds | {
            "weights": np.zeros(len(items), np.float32),
            "past_logits": past,
            "past_weights": weights.astype(np.float32),
        }

    def _texts(
        self,
        batch: Feeds,
        past: Sequence[Item],
        labelled: Sequence[Item],
        *,
        total: float,
        width: int,
    ) -> Feeds:
        """Return texts with more behind them: rows count alike, within each kind."""
        parts: list[tuple[Item, np.ndarray, np.ndarray]] = []
        share = total * self._options.past_weight / max(sum(len(i["rows"]) for i in past), 1)
        parts += [(item, item["best"], item["chances"] * share) for item in past]
        share = total * self._options.replay_weight / max(sum(len(i["rows"]) for i in labelled), 1)
        # Of each text, weights sum to 1 as they are kept.
        parts += [
            (item, item["labels"], item["weights"] * (share * len(item["rows"])))
            for item in labelled
        ]
        if not parts:
            return {name: np.asarray(array) for name, array in batch.items()}
        mixed = _behind(batch, join_texts(parts))
        check_batch(self._lesson, mixed, width=width)
        return mixed


def _behind(batch: Feeds, more: Feeds) -> dict[str, np.ndarray]:
    """Return texts with other texts after them, both padded to the longer."""
    lengths = [feeds["tokens"].shape[1] for feeds in (batch, more)]
    longest, most = max(lengths), max(feeds["labels"].shape[1] for feeds in (batch, more))
    tokens, rows, labels, weights = [], [], [], []
    offset = 0
    for feeds, length in zip((batch, more), lengths, strict=True):
        tokens.append(np.pad(feeds["tokens"], ((0, 0), (0, longest - length))))
        places = np.asarray(feeds["rows"], np.int64)
        rows.append((places // length + offset) * longest + places % length)
        widen = ((0, 0), (0, most - feeds["labels"].shape[1]))
        labels.append(np.pad(feeds["labels"], widen))
        weights.append(np.pad(feeds["weights"], widen))
        offset += len(feeds["tokens"])
    return {
        "tokens": np.concatenate(tokens).astype(np.int64),
        "rows": np.concatenate(rows),
        "labels": np.concatenate(labels).astype(np.int64),
        "weights": np.concatenate(weights).astype(np.float32),
    }


def _inputs_of(item: Item) -> dict[str, np.ndarray]:
    """Return what a classifier is fed of an example: its inputs and its label."""
    return {name: array for name, array in item.items() if name not in _BESIDE[1:]}
