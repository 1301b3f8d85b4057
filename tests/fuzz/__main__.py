"""Every parser tried with as many changed samples as there is time for.

    python -m tests.fuzz [--seconds 60] [--only NAME ...] [--seed 0] [--plain] [--out DIR]

Each parser has a process of its own, with bounds of memory and of the time that one input may take.
Where `atheris` is installed it makes the inputs, led by what they reach in the code; without it, or
with --plain, samples are changed at random. An input that brings anything but one of our errors is
written to --out, and the exit code is 1.

Source:
    atheris, https://github.com/google/atheris (libFuzzer).
"""

import argparse
import importlib.util
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from tests.fuzz.changes import changed
from tests.fuzz.targets import Target, is_taken

__all__ = ["main"]

MEMORY_BYTES = 4 * 2**30
INPUT_S = 10
MOST_INPUT_BYTES = 65536


def main() -> None:
    """Try parsers; exit with 1 where something was found."""
    given = _arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    is_led = importlib.util.find_spec("atheris") is not None and not given.plain
    targets = _targets(is_led=is_led and bool(given.child))
    if given.child:
        _child(targets[given.child], given, is_led=is_led)
        return
    chosen = [targets[name] for name in given.only or targets]
    _say(f"inputs are made by {'atheris' if is_led else 'chance'}")
    found = [one.name for one in chosen if not _is_sound(one, given)]
    _say(f"{len(found)} of {len(chosen)} parsers fail: {', '.join(found) or 'none'}")
    sys.exit(1 if found else 0)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _targets(*, is_led: bool) -> Mapping[str, Target]:
    """Return all targets; our own code tells atheris what is reached, where it leads."""
    if is_led:
        import atheris

        context = atheris.instrument_imports(include=["onhand"])
    else:
        context = nullcontext()
    with context:
        from tests.fuzz import files, requests, sources
    return {one.name: one for one in (*files.TARGETS, *requests.TARGETS, *sources.TARGETS)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each parser")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these parsers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _is_sound(target: Target, given: argparse.Namespace) -> bool:
    name = target.name
    if target.needs and importlib.util.find_spec(target.needs) is None:
        _say(f"{name}: left out, {target.needs} is not installed")
        return True
    words = ["--child", name, "--seconds", str(given.seconds), "--seed", str(given.seed)]
    words += ["--out", str(given.out), *(["--plain"] if given.plain else [])]
    begun_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = done.stdout.splitlines()
    figures = [line for line in lines if line.startswith(("stat::number_of", "tried "))]
    _say(f"{name}: {time.monotonic() - begun_s:.0f} s, {' '.join(figures[-1:])}")
    if done.returncode:
        _say("\n".join(lines[-60:]))
    return done.returncode == 0


def _child(target: Target, given: argparse.Namespace, *, is_led: bool) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")
    for sample in target.samples:  # what is imported late is not part of an input's time
        is_taken(target, sample)
    if is_led:
        _by_atheris(target, given)
    else:
        _by_chance(target, given)


def _by_chance(target: Target, given: argparse.Namespace) -> None:
    # Not an exception: a parser that catches too much would go on.
    signal.signal(signal.SIGALRM, _too_long)
    dice = random.Random(given.seed)  # noqa: S311 - reproducible
    end_s, tried = time.monotonic() + given.seconds, 0
    place = given.out / f"{target.name}.input"
    while time.monotonic() < end_s:
        content = dice.choice(target.samples)
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            content = changed(content, target.samples, dice)[:MOST_INPUT_BYTES]
        place.write_bytes(content)
        signal.alarm(INPUT_S)
        is_taken(target, content)
        signal.alarm(0)
        tried += 1
    place.unlink(missing_ok=True)
    _say(f"tried {tried} inputs")


def _too_long(number: int, frame: object) -> None:
    _say(f"one input takes over {INPUT_S} seconds")
    traceback.print_stack()
    sys.stdout.flush()
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGABRT)


def _by_atheris(target: Target, given: argparse.Namespace) -> None:
    import atheris

    corpus = given.out / "corpus" / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(target.samples):
        (corpus / f"sample-{number}").write_bytes(sample)

    def mutated(content: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            made: bytes = atheris.Mutate(content, most)
            return made
        dice = random.Random(seed)  # noqa: S311 - reproducible
        return changed(content, target.samples, dice)[:most]

    options: Sequence[str] = [
        f"-max_total_time={given.seconds}",
        f"-timeout={INPUT_S}",
        f"-max_len={MOST_INPUT_BYTES}",
        f"-seed={given.seed + 1}",
        f"-artifact_prefix={given.out}/{target.name}-",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
    ]

    @atheris.instrument_func  # type: ignore[untyped-decorator] # where it has no types
    def tried(content: bytes) -> None:
        is_taken(target, bytes(content))

    atheris.Setup([sys.argv[0], *options, str(corpus)], tried, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
