"""Which of several backends gets a request: pure functions of what is known of them."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.device.serving.asks import Ask

__all__ = [
    "CHOICES",
    "Candidate",
    "affine",
    "least_outstanding",
    "power_of_two",
    "prefix_key",
    "ranked",
]

_PREFIX_LETTERS: Final = 1024
_OVER: Final = 1.25  # times its fair share that a backend takes for the sake of affinity
_SLOWER: Final = 3.0
_SLOWER_S: Final = 0.25

Draw = Callable[[], float]
"""Gives numbers from 0 to 1, without 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is known of a backend that could answer.

    Attributes:
        name: its name.
        weight: its share of the work, above 0.
        n_active: answers that it computes now.
        first_s: seconds that the first text is expected to take; 0 where nothing is known.
    """

    name: str
    weight: float = 1.0
    n_active: int = 0
    first_s: float = 0.0

    @property
    def load(self) -> float:
        """What it would have to do with one more, by its weight."""
        return (self.n_active + 1) / self.weight


def least_outstanding(candidates: Sequence[Candidate], draw: Draw) -> Candidate:
    """Return the one with least open, by weight; the faster one of equals.

    Args:
        candidates: at least one.
        draw: decides between those that are alike.
    """
    return min(candidates, key=lambda one: (one.load, one.first_s, draw()))


def power_of_two(candidates: Sequence[Candidate], draw: Draw) -> Candidate:
    """Return the better of two that are drawn by weight.

    Better is what is likely to give its first text earlier: what that took lately, times what is
    open. Drawing keeps all that choose at one moment from taking the same.

    Args:
        candidates: at least one.
        draw: where chance comes from.

    Source:
        Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    """
    first = _drawn(candidates, draw)
    others = [one for one in candidates if one is not first]
    if not others:
        return first
    second = _drawn(others, draw)
    return min((first, second), key=lambda one: (max(one.first_s, 1e-6) * one.load, one.load))


CHOICES: Final[Mapping[str, Callable[[Sequence[Candidate], Draw], Candidate]]] = {
    "power-of-two": power_of_two,
    "least-outstanding": least_outstanding,
}


def ranked(key: bytes, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Order backends for a key: the same ones in the same order wherever it is asked.

    A backend that comes or goes moves only the keys that were its own.

    Args:
        key: of what is asked.
        candidates: in any order.

    Returns:
        The best first.

    Source:
        Weighted rendezvous hashing: Schindelhauer and Schomaker, SPAA 2005.
    """

    def score(one: Candidate) -> float:
        digest = hashlib.sha256(key + b"\0" + one.name.encode()).digest()
        share = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
        return -one.weight / math.log(share)

    return sorted(candidates, key=score, reverse=True)


def affine(key: bytes, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the backend that a key belongs to, or the next one, where those are not overloaded.

    Args:
        key: of what is asked.
        candidates: at least one.

    Returns:
        None where all have more than their share, or answer slowly.

    Source:
        Consistent hashing with bounded loads: arXiv:1608.01350.
    """
    weight = sum(one.weight for one in candidates)
    n_active = sum(one.n_active for one in candidates) + 1
    quickest_s = min(one.first_s for one in candidates)
    for one in ranked(key, candidates):
        most = math.ceil(_OVER * n_active * one.weight / weight)
        is_slow = one.first_s > _SLOWER * quickest_s + _SLOWER_S
        if one.n_active < most and not is_slow:
            return one
    return None


def prefix_key(ask: Ask) -> bytes:
    """Return a key that prompts have in common which begin alike.

    Of a conversation that is all up to the first thing a person says, so that its later turns
    have it as well.

    Args:
        ask: what is asked.
    """
    if isinstance(ask.prompt, str):
        begin = ask.prompt[:_PREFIX_LETTERS]
    else:
        texts: list[str] = []
        for message in ask.prompt:
            texts.append(f"{message.role}\0{message.content[:_PREFIX_LETTERS]}\0")
            if message.role == "user":
                break
        begin = "".join(texts)
    return hashlib.sha256(f"{ask.tenant}\0{begin}".encode(errors="surrogatepass")).digest()


def _drawn(candidates: Sequence[Candidate], draw: Draw) -> Candidate:
    at = draw() * sum(one.weight for one in candidates)
    for one in candidates:
        at -= one.weight
        if at < 0:
            return one
    return candidates[-1]
