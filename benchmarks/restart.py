"""The same conversation again after `kill -9` and a restart: time to its first token.

    python -m benchmarks.restart [--shape smollm2-135m] [--context 2000] [--tokens 32]
        [--rounds 5] [--bundle DIR] [--house DIR] [--no-house] [--json] [--out FILE.json]

A round: `onhand serve` starts with a bundle (the shape with random int4 weights; then the house
assistant) and is asked a conversation of about 2,000 tokens that it never saw, greedily, as a
stream. When `/metrics` says that nothing waits to be written, the process is killed by SIGKILL,
another one is started on the same state folder, and it is asked the same. Each process has answered
four tokens of something else before, so that it is ready in both cases; the cache of whole answers
is off. Every round has a conversation of its own.

`ttft_ratio_after_restart` is the median of the rounds' ratios; `cached_tokens` is the least of the
rounds, `same_answer` says whether all answers after a restart were those before it, to the byte.
Without ONHAND_ASSETS (the tokenizer of the shape) only the house assistant is measured.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from examples.house_assistant.evaluate import HELD_OUT
from examples.house_assistant.generate import read_examples

from benchmarks.served import Server, Streamed, counter, streamed
from benchmarks.sessions import ASSETS, build
from benchmarks.shapes import SHAPES
from benchmarks.telling import tell
from onhand.core.bundle import read_bundle
from onhand.device.text_files import read_text_files
from onhand.device.threads import usable_threads

__all__ = ["main"]

HOUSE = Path("examples/house_assistant/model")
CACHE = {"exact_bytes": 0, "blocks_bytes": 2**30}
WRITTEN_S = 120.0
Asked = Mapping[str, object]


def main() -> None:
    """Run the benchmark; print the values, as JSON with --json."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(given, Path(scratch))
    results = {
        "command": " ".join(["python -m benchmarks.restart", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        **found,
    }
    tell(results, as_json=given.json, out=given.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--context", type=int, default=2000, help="tokens of the conversation")
    parser.add_argument("--tokens", type=int, default=32, help="of the answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bundle", type=Path, help="a bundle instead of the shape")
    parser.add_argument("--house", type=Path, help="a bundle of the house assistant")
    parser.add_argument("--no-house", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/restart.json"))
    return parser.parse_args()


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """Measure the shape, its values plainly, and the house assistant in a table of its own."""
    found: dict[str, object] = {}
    if given.bundle is not None or ASSETS.is_dir():
        bundle = given.bundle or build(given.shape, scratch)
        found |= {"model": given.shape if given.bundle is None else str(given.bundle)}
        found |= figures(rounds(bundle, scratch / "shape-home", text_of(bundle, given), given))
    else:
        found["skipped"] = f"{ASSETS} is absent: set ONHAND_ASSETS for the {given.shape} shape"
    if not given.no_house:
        house = given.house or build_house(scratch)
        made = rounds(house, scratch / "house-home", talk_of(house, given), given)
        found["house_assistant"] = figures(made)
    return found


def build_house(scratch: Path) -> Path:
    """Make an int4 bundle of the house assistant."""
    bundle = scratch / "house"
    words = ["build", str(HOUSE), "-o", str(bundle), "--bits", "4", "--method", "rtn"]
    subprocess.run(
        [sys.executable, "-m", "onhand", *words, "--no-original", "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"ONHAND_HOME": str(scratch / "build-home")},
    )
    return bundle


def text_of(bundle: Path, given: argparse.Namespace) -> Callable[[int], Asked]:
    """Return a function that makes a round's prompt: numbered sentences, so many tokens."""
    tokenizer = read_text_files(read_bundle(bundle)).tokenizer

    def asked(number: int) -> Asked:
        sentences, text = 0, ""
        while len(tokenizer.encode_plain(text)) < given.context:
            sentences += 1
            text += f"Round {number}, line {sentences}: the lamp of room {sentences * 7} is on. "
        return {"prompt": text, "max_tokens": given.tokens}

    return asked


def talk_of(bundle: Path, given: argparse.Namespace) -> Callable[[int], Asked]:
    """Return a function that makes a round's conversation: commands and their right answers."""
    tokenizer = read_text_files(read_bundle(bundle)).tokenizer
    examples = list(read_examples(HELD_OUT))

    def asked(number: int) -> Asked:
        messages: list[dict[str, str]] = []
        n_tokens, place = 0, number * 197
        while n_tokens < given.context:
            example = examples[place % len(examples)]
            place += 1
            messages.append({"role": "user", "content": example.command})
            messages.append({"role": "assistant", "content": example.answer})
            # What opens and ends a turn.
            n_tokens += 6 + len(tokenizer.encode_plain(example.command + example.answer))
        # The last answer is what is asked for.
        return {"messages": messages[:-1], "max_tokens": given.tokens}

    return asked


def rounds(
    bundle: Path, home: Path, asked: Callable[[int], Asked], given: argparse.Namespace
) -> Sequence[tuple[Streamed, Streamed, float]]:
    """Return for each round the answer before, the one after, and the seconds of writing."""
    found = []
    for number in range(given.rounds):
        question = asked(number)
        with started(bundle, home) as server:
            before = streamed(server.client, question)
            written_s = wait_until_written(server)
            server.kill()
        with started(bundle, home) as server:
            after = streamed(server.client, question)
            server.kill()
        found.append((before, after, written_s))
        print(
            f"round {number}: cold {before.ttft_s:.3f} s, after restart {after.ttft_s:.3f} s, "
            f"{after.cached_tokens} of {after.prompt_tokens} tokens cached",
            file=sys.stderr,
        )
    return found


def started(bundle: Path, home: Path) -> Server:
    """Start a server that has answered something else."""
    server = Server(bundle, home, cache=CACHE, model={"name": "model"})
    streamed(server.client, {"prompt": "Something else entirely.", "max_tokens": 4})
    return server


def wait_until_written(server: Server) -> float:
    """Wait until nothing waits to be written; return how long it took."""
    begun_s = time.perf_counter()
    while counter(server.client, "onhand_blocks_waiting") > 0:
        if time.perf_counter() - begun_s > WRITTEN_S:
            raise RuntimeError(f"blocks are not written after {WRITTEN_S} s")
        time.sleep(0.01)
    return time.perf_counter() - begun_s


def figures(made: Sequence[tuple[Streamed, Streamed, float]]) -> dict[str, object]:
    """Return the plain values of some rounds, and the rounds themselves."""
    cold = [before.ttft_s for before, _, _ in made]
    again = [after.ttft_s for _, after, _ in made]
    ratios = [after.ttft_s / before.ttft_s for before, after, _ in made]
    return {
        "rounds": len(made),
        "prompt_tokens": min(after.prompt_tokens for _, after, _ in made),
        "ttft_cold_s": statistics.median(cold),
        "ttft_after_restart_s": statistics.median(again),
        "ttft_ratio_after_restart": statistics.median(ratios),
        "ttft_ratio_after_restart_worst": max(ratios),
        "cached_tokens": min(after.cached_tokens for _, after, _ in made),
        "same_answer": all(before.text == after.text for before, after, _ in made),
        "answer_tokens": min(after.answer_tokens for _, after, _ in made),
        "samples": {
            "ttft_cold_s": cold,
            "ttft_after_restart_s": again,
            "cold_cached_tokens": [before.cached_tokens for before, _, _ in made],
            "cached_tokens": [after.cached_tokens for _, after, _ in made],
            "writing_s": [written_s for _, _, written_s in made],
        },
    }


if __name__ == "__main__":
    main()
