"""Scores of questions for `benchmarks.routing`: how well a small model should do, from the text.

Each is learned, if at all, from one part of the questions and judged on another. The larger a
score, the rather the question stays on the device.
"""

import csv
import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Questions",
    "Scores",
    "by_length",
    "by_neighbours",
    "by_topic",
    "by_words",
    "learned_logistic",
    "read_questions",
    "word_vectors",
]

Scores = NDArray[np.float64]
N_WORDS = 2048  # hashed words and pairs of words
N_NEIGHBOURS = 40
STEPS, RATE, DECAY = 300, 0.05, 2e-4
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions of one set, and who answered them right.

    Attributes:
        texts: as the models were asked.
        topics: of each, as its set names them.
        weak: (N,) 1.0 where the small model was right.
        strong: (N,) 1.0 where the large one was.
    """

    texts: Sequence[str]
    topics: Sequence[str]
    weak: Scores
    strong: Scores

    def part(self, chosen: NDArray[np.bool_]) -> "Questions":
        """Return some of them."""
        places = np.flatnonzero(chosen).tolist()
        return Questions(
            [self.texts[i] for i in places],
            [self.topics[i] for i in places],
            self.weak[places],
            self.strong[places],
        )


def read_questions(folder: Path, name: str) -> Questions:
    """Read "mmlu" or "gsm8k" of RouteLLM's evaluations."""
    paths = sorted((folder / "mmlu").glob("*.csv")) if name == "mmlu" else []
    texts, topics, right = [], [], []
    for path in paths or [folder / "gsm8k_responses.csv"]:
        with path.open(encoding="utf-8", newline="") as file:
            for row in list(csv.reader(file))[1:]:
                texts.append(row[0])
                topics.append(path.stem)
                right.append([row[1] == "True", row[2] == "True"])
    found = np.asarray(right, dtype=np.float64)  # (N, 2)
    return Questions(texts, topics, found[:, 0], found[:, 1])


def by_length(questions: Questions) -> Scores:
    """Short questions stay: nothing is learned."""
    return -np.asarray([len(text) for text in questions.texts], dtype=np.float64)


def by_topic(seen: Questions, judged: Questions) -> Scores:
    """How often the large model alone was right in a topic: needs the topic's name."""
    gains = _gains(seen)
    mean = {
        topic: gains[[one == topic for one in seen.topics]].mean() for topic in set(seen.topics)
    }
    usual = float(gains.mean())
    return -np.asarray([mean.get(topic, usual) for topic in judged.topics])


def by_words(seen: Questions, judged: Questions) -> Scores:
    """A logistic regression on hashed words: the chance that only the large model is right."""
    vectors, scale = word_vectors(seen.texts, None)
    weights = learned_logistic(vectors, _gains(seen))
    found = word_vectors(judged.texts, scale)[0] @ weights
    return -found.astype(np.float64)


def by_neighbours(seen: Questions, judged: Questions) -> Scores:
    """What only the large model got right among the most similar questions, by their words."""
    vectors, scale = word_vectors(seen.texts, None)
    asked, _ = word_vectors(judged.texts, scale)
    gains = _gains(seen)
    found = np.empty(len(asked))
    for begin in range(0, len(asked), 512):
        near = asked[begin : begin + 512] @ vectors.T  # (B, N)
        places = np.argpartition(-near, N_NEIGHBOURS - 1, axis=1)[:, :N_NEIGHBOURS]
        weights = np.maximum(np.take_along_axis(near, places, axis=1), 1e-6)
        found[begin : begin + 512] = (weights * gains[places]).sum(axis=1) / weights.sum(axis=1)
    return -found


def word_vectors(
    texts: Sequence[str], scale: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors of length 1 of hashed words and pairs, rare ones more than common ones.

    Args:
        texts: N texts.
        scale: (D,) how much each word counts; None to learn it from these texts.

    Returns:
        vectors: (N, D + 4); the last four say how long a text is and of what kind of letters.
        scale: (D,).
    """
    counts = np.zeros((len(texts), N_WORDS), np.float32)
    shape = np.zeros((len(texts), 4), np.float32)
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        for token in [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]:
            counts[row, zlib.crc32(token.encode()) % N_WORDS] += 1
        n = max(len(words), 1)
        digits = sum(word.isdigit() for word in words) / n
        marks = sum(not word.isalnum() for word in words) / n
        shape[row] = (np.log1p(n) / 5, digits, marks, 1.0)
    if scale is None:
        seen = (counts > 0).sum(axis=0)
        scale = np.log((1 + len(texts)) / (1 + seen)).astype(np.float32)
    weighted = np.log1p(counts) * scale
    weighted /= np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-6)
    return np.concatenate((weighted, shape), axis=1), scale


def learned_logistic(x: NDArray[np.float32], y: Scores) -> NDArray[np.float32]:
    """Return the weights of a logistic regression, by Adam on all examples at once.

    Args:
        x: (N, D) float32.
        y: (N,) 0.0 or 1.0.
    """
    weights = np.zeros(x.shape[1], np.float32)
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    target = y.astype(np.float32)
    for step in range(1, STEPS + 1):
        found = 1 / (1 + np.exp(-(x @ weights)))
        gradient = x.T @ (found - target) / len(y) + DECAY * weights
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        fair = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        weights -= RATE * first / (1 - 0.9**step) / fair
    return weights


def _gains(questions: Questions) -> Scores:
    return np.maximum(questions.strong - questions.weak, 0.0)
