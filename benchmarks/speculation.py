"""Decoding with drafts beside plain decoding: one engine, one process, taking turns.

    python -m benchmarks.speculation [--shape qwen2.5-0.5b] [--rounds 7] [--bundles FOLDER]
                                     [--out FILE.json] [--json]

A bundle of random weights has the shape's costs; what is right is scripted: the drafter knows the
greedy answer beforehand and guesses a share of 0, 0.3, 0.5, 0.7 or 0.9 of its tokens rightly,
scattered at random, others in each round. Each round times every case next to plain decoding of
the same tokens, text included. Then prompt lookup on real models: the house assistant on held-out
commands, alone and in conversations of four turns, and a model of stories that continues stories.
Bundles are built with `onhand build`; with --bundles they are kept in a folder, and those that are
there are used.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from examples.house_assistant.evaluate import HELD_OUT
from examples.house_assistant.generate import read_examples

from benchmarks.shapes import SHAPES, make_checkpoint
from onhand.core.arrays import TokenArray
from onhand.core.bundle import read_bundle
from onhand.device.drafters import Draft
from onhand.device.engines.base import Loaded
from onhand.device.engines.choosing import step_check_of
from onhand.device.generate import TextSession, generate_tokens
from onhand.device.opening import open as open_session
from onhand.device.opening import open_engine
from onhand.device.sampling import Sampler, Sampling
from onhand.device.speculate import Speculator
from onhand.device.template import Message
from onhand.device.text import Tokenizer
from onhand.device.text_files import read_text_files
from onhand.device.threads import usable_threads

__all__ = ["main"]

SHARES = (0.0, 0.3, 0.5, 0.7, 0.9)
TARGETS = {0.0: 0.95, 0.3: 1.15, 0.5: 1.5, 0.7: 2.0, 0.9: 2.5}
PROMPT_TOKENS = 512
ROWS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
HOUSE = Path("examples/house_assistant/model")
MAX_TOKENS = 200


def main() -> None:
    """Run the benchmark, print what it found, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--engine", default="native")
    parser.add_argument("--threads", type=int, help="of one step; all that may be used")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--commands", type=int, default=80, help="asked of the house assistant")
    parser.add_argument("--stories", type=int, default=20, help="continued")
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/speculation.json"))
    parser.add_argument("--json", action="store_true", help="print the plain numbers only")
    given = parser.parse_args()
    say = (lambda line: None) if given.json else (lambda line: print(line, flush=True))
    with tempfile.TemporaryDirectory() as scratch:
        bundles = given.bundles or Path(scratch)
        found: dict[str, object] = scripted(given, bundles, say)
        found["lookup"] = looked_up(given, bundles, say)
    numbers = plain_numbers(found)
    results = {
        "command": " ".join(["python -m benchmarks.speculation", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": given.threads or usable_threads(),
        "engine": given.engine,
        "shape": given.shape,
        "prompt_tokens": PROMPT_TOKENS,
        "answer_tokens": given.tokens,
        **numbers,
        **found,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    if given.json:
        print(json.dumps(numbers, indent=1))


class Scripted:
    """Knows how a text goes on and guesses a given share of its tokens rightly."""

    is_free: ClassVar[bool] = True

    def __init__(self, share: float, *, wrong: int) -> None:
        """Take the share, and a token that never stands in the answer."""
        self._share = share
        self._wrong = wrong
        self._guesses: list[int] = []
        self._place = 0

    def learn(self, answer: Sequence[int], *, seed: int) -> None:
        """Choose which tokens of the next answer to guess rightly: exactly the share of them."""
        n_right = round(self._share * len(answer))
        is_right = np.random.default_rng(seed).permutation(len(answer)) < n_right
        pairs = zip(answer, is_right, strict=True)
        self._guesses = [token if right else self._wrong for token, right in pairs]

    def begin(self, text: TokenArray, sampler: Sampler) -> None:
        """See `Drafter`."""
        self._place = 0

    def push(self, tokens: Sequence[int]) -> None:
        """See `Drafter`."""
        self._place += len(tokens)

    def grade(self) -> int | None:
        """See `Drafter`."""
        return 0 if self._place < len(self._guesses) else None

    def backlog(self) -> int:
        """See `Drafter`."""
        return 0

    def catch_up(self) -> None:
        """See `Drafter`."""

    def draft(self, n_tokens: int) -> Draft:
        """See `Drafter`."""
        return Draft(self._guesses[self._place : self._place + n_tokens])

    def close(self) -> None:
        """See `Drafter`."""


class Timed:
    """A model that answers one prompt over and over; the prompt is read once."""

    def __init__(self, loaded: Loaded, tokenizer: Tokenizer, *, n_tokens: int) -> None:
        """Read a random prompt of ordinary tokens."""
        self.loaded = loaded
        self.n_tokens = n_tokens
        self._tokenizer = tokenizer
        self._forbidden = tokenizer.missing(loaded.vocab_size)
        self._prompt = np.random.default_rng(0).integers(1, 40000, PROMPT_TOKENS)
        self._session = loaded.session(context=PROMPT_TOKENS + n_tokens + 16)
        loaded.step([(self._session, self._prompt)])

    def run(self, speculator: Speculator | None = None) -> tuple[float, list[int]]:
        """Answer; return the seconds after the first token, and the tokens."""
        self._session.rewind(PROMPT_TOKENS - 1)
        generate = generate_tokens if speculator is None else speculator.generate_tokens
        tokens = generate(
            self.loaded,
            self._session,
            self._prompt[-1:],
            max_tokens=self.n_tokens,
            seen=self._prompt,
            forbidden=self._forbidden,
        )
        stream = self._tokenizer.stream()
        found = [next(tokens)]
        begun = time.perf_counter()
        for token in tokens:
            stream.push(token)
            found.append(token)
        return time.perf_counter() - begun, found

    def rows(self, n: int) -> float:
        """Return the seconds of a step that checks n - 1 drafted tokens."""
        self._session.rewind(PROMPT_TOKENS)
        sampler = Sampler(Sampling(), forbidden=self._forbidden)
        begun = time.perf_counter()
        step_check_of(self.loaded)(self._session, self._prompt[:n], sampler)
        return time.perf_counter() - begun


def scripted(
    given: argparse.Namespace, bundles: Path, say: Callable[[str], None]
) -> dict[str, object]:
    """Time every share next to plain decoding; the first round warms up and learns."""
    bundle = read_bundle(built(given.shape, bundles, say))
    variant, _ = bundle.variant(None)
    loaded, _, _ = open_engine(bundle, variant=variant, engine=given.engine, threads=given.threads)
    model = Timed(loaded, read_text_files(bundle).tokenizer, n_tokens=given.tokens)
    _, answer = model.run()
    wrong = next(token for token in range(1, 40000) if token not in answer)
    drafters = {share: Scripted(share, wrong=wrong) for share in SHARES}
    speculators = {share: Speculator(drafter) for share, drafter in drafters.items()}
    cases: dict[float, dict[str, list[float]]] = {
        share: {"plain_s": [], "drafted_s": [], "acceptance": [], "tokens_per_step": []}
        for share in SHARES
    }
    first: dict[str, float] = {}
    rows: dict[int, list[float]] = {n: [] for n in ROWS}
    same = True
    for number in range(given.rounds + 1):
        for share, case in cases.items():
            drafters[share].learn(answer, seed=number)
            # Whoever comes second may find the processor warmer.
            order: list[Speculator | None] = [None, speculators[share]]
            taken = {}
            for speculator in order if number % 2 else order[::-1]:
                taken[speculator is None], tokens = model.run(speculator)
                same = same and tokens == answer
            counts = speculators[share].counts
            if number == 0:
                first[str(share)] = taken[True] / taken[False]
                continue
            case["plain_s"].append(taken[True])
            case["drafted_s"].append(taken[False])
            case["acceptance"].append(counts.acceptance)
            case["tokens_per_step"].append(counts.tokens_per_step)
        for _ in range(5):
            for n in ROWS:
                rows[n].append(model.rows(n))
    loaded.close()
    curve = {str(n): statistics.median(rows[n]) / statistics.median(rows[1]) for n in ROWS}
    for share, case in cases.items():
        say(f"{given.shape}, {share:.0%} right: {line(case)}; target {TARGETS[share]}")
    costs = ", ".join(f"{n}: {ratio:.2f}" for n, ratio in curve.items())
    say(f"{given.shape}, cost of a step by rows: {costs}")
    return {
        "cases": {str(share): case for share, case in cases.items()},
        "first_answer_ratio": first,
        "same_tokens": same,
        "rows_ratio": curve,
        "row_s": statistics.median(rows[1]),
    }


def looked_up(
    given: argparse.Namespace, bundles: Path, say: Callable[[str], None]
) -> dict[str, object]:
    """Let real models answer with prompt lookup and without, prompt by prompt."""
    found: dict[str, object] = {}
    house = built("house-assistant", bundles, say)
    for name, turns in (("house commands", 1), ("house conversations", 4)):
        prompts = commands(given.commands, turns)
        found[name] = both_ways(house, given, prompts, Sampling())
    stories = built("tinystories", bundles, say)
    texts = list(islice(beginnings(), given.stories))
    for name, sampling in (
        ("stories, greedy", Sampling()),
        ("stories, temperature 0.8", Sampling(temperature=0.8, seed=0)),
    ):
        found[name] = both_ways(stories, given, [[text] for text in texts], sampling)
    for name, case in found.items():
        if isinstance(case, dict):
            say(
                f"{name}: {case['acceptance']:.1%} of drafted tokens right, "
                f"{case['tokens_per_step']:.2f} tokens a step, {case['ratio']:.2f} x plain"
            )
    return found


def both_ways(
    bundle: Path, given: argparse.Namespace, prompts: Sequence[Sequence[str]], sampling: Sampling
) -> dict[str, object]:
    """Answer lists of turns with lookup and without; return the counts and the ratio of times.

    More than one turn, or a model that takes messages, is a conversation.
    """
    totals = dict.fromkeys(("accepted", "compared", "drafted", "idle_steps", "off_steps"), 0.0)
    totals |= {"steps": 0.0, "tokens": 0.0}
    ratios, same = [], True
    with (
        open_session(bundle, engine=given.engine, threads=given.threads) as plain,
        open_session(
            bundle, engine=given.engine, threads=given.threads, speculate="lookup"
        ) as drafting,
    ):
        answers(plain, prompts[0], sampling, dict(totals))
        for turns in prompts:
            plain_s, expected = answers(plain, turns, sampling, totals)
            drafted_s, texts = answers(drafting, turns, sampling, totals)
            ratios.append(plain_s / drafted_s)
            same = same and texts == expected
    return {
        **totals,
        "acceptance": totals["accepted"] / max(totals["drafted"], 1),
        "tokens_per_step": totals["tokens"] / max(totals["steps"], 1),
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "same_texts": same,
    }


def answers(
    session: TextSession, turns: Sequence[str], sampling: Sampling, totals: dict[str, float]
) -> tuple[float, list[str]]:
    """Answer turn by turn; return the seconds in all and the answers, and add the counts up."""
    said: list[Message] = []
    texts: list[str] = []
    seconds = 0.0
    for turn in turns:
        said.append(Message("user", turn))
        begun = time.perf_counter()
        answer = session.generate(
            said if session.takes_messages else turn, max_tokens=MAX_TOKENS, sampling=sampling
        )
        texts.append("".join(answer))
        seconds += time.perf_counter() - begun
        said.append(Message("assistant", texts[-1]))
        if answer.speculation is not None:
            counts = answer.speculation.to_json()
            for key in totals:
                totals[key] += counts[key]
    return seconds, texts


def commands(n: int, turns: int) -> list[list[str]]:
    """Return held-out commands, so many in each conversation, one language in each."""
    examples = read_examples(HELD_OUT)
    found: list[list[str]] = []
    for language in ("en", "zh"):
        texts = [one.command for one in examples if one.language == language][: n // 2]
        found += [texts[i : i + turns] for i in range(0, len(texts), turns)]
    return found


def beginnings() -> Iterator[str]:
    """Yield the first hundred words of each story that begins as most do."""
    text = (ASSETS / "tinystories-text" / "tinystories_sample.txt").read_text(encoding="utf-8")
    opening = "Once upon a time"
    for story in text.split(opening)[1:]:
        words = story.split()[:96]
        if len(words) == 96:
            yield f"{opening}{' ' if story[0] == ' ' else ''}{' '.join(words)}"


def built(name: str, bundles: Path, say: Callable[[str], None]) -> Path:
    """Return a bundle's folder; build it if it is not there."""
    bundle = bundles / name
    if bundle.is_dir():
        return bundle
    bundles.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = {"house-assistant": HOUSE, "tinystories": ASSETS / "tinystories-656k"}.get(name)
        if source is None:
            source = Path(scratch) / "source"
            tokenizer = ASSETS / "tokenizers" / "smollm2" / "tokenizer.json"
            make_checkpoint(name, source, tokenizer=tokenizer)
        say(f"{name}: building")
        subprocess.run(
            [
                *(sys.executable, "-m", "onhand", "build", str(source), "-o", str(bundle)),
                *("--bits", "4", "--method", "rtn", "--json"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"ONHAND_HOME": str(Path(scratch) / "home")},
        )
    return bundle


def ratio_quartiles(case: dict[str, list[float]]) -> tuple[float, float, float]:
    """Return the quartiles of plain seconds over drafted ones, round by round."""
    pairs = zip(case["plain_s"], case["drafted_s"], strict=True)
    ratios = [plain / drafted for plain, drafted in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return low, middle, high


def line(case: dict[str, list[float]]) -> str:
    """Lay one case out for people."""
    low, middle, high = ratio_quartiles(case)
    return (
        f"{middle:.2f} x plain (quartiles {low:.2f} to {high:.2f}, {len(case['plain_s'])} pairs), "
        f"{statistics.median(case['tokens_per_step']):.2f} tokens a step"
    )


def plain_numbers(found: dict[str, object]) -> dict[str, object]:
    """Return what a program looks at: a ratio with quartiles for each share, and booleans."""
    cases = found["cases"]
    if not isinstance(cases, dict):
        raise TypeError("not a result")
    numbers: dict[str, object] = {"same_tokens": found["same_tokens"]}
    for share in SHARES:
        low, middle, high = ratio_quartiles(cases[str(share)])
        key = f"ratio_at_{round(share * 100)}"
        numbers |= {key: middle, f"{key}_low": low, f"{key}_high": high}
        numbers[f"{key}_reached"] = middle >= TARGETS[share]
    return numbers


if __name__ == "__main__":
    main()
