"""The house assistant taught on the device: two devices, an action and a phrasing that are new.

    python -m benchmarks.learn_house [--seeds 5] [--first 0] [--old 1000] [--new 200] [--bits 4]
        [--json] [--choose] [--method replay,replayed=8] [--steps 480] [--rate 0.004] [--batch 8]
        [--schedule cosine] [--average 0] [--repeats 1] [--vary 24] [--rehearse 0] [--no-scope]
        [--at-once 1] [--keep FOLDER] [--out FILE.json]

One bundle is built that can learn. For each seed twenty examples are drawn, and a process of the
device's code alone learns them from a file by `onhand.learn`, once with what protects the old and
once without; the versions so made answer, greedy and in the engine that is preferred here, commands
about the newcomers in phrasings never seen, and the frozen held-out commands of the example. All
chance is of the seed. Duration and energy are of the learning, memory is the learning process's
highest; exact matches are exact counts. Means and standard deviations are over the seeds. What
learns without protection has as many steps of the same examples and variants. With --keep the
bundle, each seed's figures and a training that was broken off stay in a folder, and the same
command goes on from there: the duration of such a training is that of its steps, "resumed_at" says
where. --at-once teaches so many seeds beside each other, with a thread each.

Settings are chosen with --choose and seeds from 10 on: what is asked then is drawn as the
held-out commands and is none of them, and nothing is learned without protection.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from examples.house_assistant.actions import Example
from examples.house_assistant.evaluate import CALIBRATION, HELD_OUT, Scores, score
from examples.house_assistant.generate import examples, read_examples
from examples.house_assistant.newcomers import NEWCOMERS, asked, taught, write_known, write_lines

from onhand.device.learning.schedules import SCHEDULES
from onhand.device.opening import open as open_text
from onhand.device.template import Message

__all__ = ["main"]

_MODEL = Path(__file__).parents[1] / "examples" / "house_assistant" / "model"
_CHILD = "benchmarks.learn_house_child"
_MAX_TOKENS = 160
_CHOOSING_SEED = 4242
LEARNABLE = "lora,targets=qkv+out+gate_up+down"
_SETTINGS = (
    "average",
    "batch",
    "method",
    "rate",
    "rehearse",
    "repeats",
    "schedule",
    "scope",
    "steps",
    "vary",
)
METHODS = {"protected": "replay,replayed=8", "naive": "naive"}


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    old = _others(given.old) if given.choose else read_examples(HELD_OUT)[: given.old]
    with tempfile.TemporaryDirectory() as scratch:
        place = given.keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        bundle = given.bundle or _build(place / "built", given.bits, given.learnable)
        before_old = _answered(bundle, None, old)
        with ThreadPoolExecutor(given.at_once) as pool:
            rounds = list(
                pool.map(
                    lambda seed: _kept(bundle, place, seed, old, given),
                    range(given.first, given.first + given.seeds),
                )
            )
    results = {
        "command": " ".join(["python -m benchmarks.learn_house", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "old_commands": len(old),
        "new_commands": given.new,
        "settings": {one: getattr(given, one) for one in ("bits", "learnable", *_SETTINGS)},
        "taught_examples": len(taught(given.first)),
        **summary(before_old.share(), rounds),
        "rounds": rounds,
    }
    print(json.dumps(results, indent=1) if given.json else table(results))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed; settings are chosen on others")
    parser.add_argument("--old", type=int, default=1000, help="old commands that are asked")
    parser.add_argument(
        "--choose", action="store_true", help="ask others than the held-out commands, to choose"
    )
    parser.add_argument("--new", type=int, default=200, help="new commands that are asked")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--method", default=METHODS["protected"], help="what protects the old")
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--batch", type=int, default=8, help="examples of a step")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--schedule", default="cosine", choices=SCHEDULES)
    parser.add_argument(
        "--average", type=float, default=0.0, help="share of steps that is averaged"
    )
    parser.add_argument("--repeats", type=int, default=1, help="times that it learns anew")
    parser.add_argument("--vary", type=int, default=24, help="variants of each example")
    parser.add_argument("--rehearse", type=int, default=0, help="known commands that are tried")
    parser.add_argument(
        "--scope",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="answer only what is like what is taught with what is learned",
    )
    parser.add_argument("--at-once", type=int, default=1, help="seeds beside each other")
    parser.add_argument("--keep", type=Path, help="where a run that was broken off goes on")
    parser.add_argument("--learnable", default=LEARNABLE, help="what the bundle can learn")
    parser.add_argument("--bundle", type=Path, help="one that is built already, and can learn")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/learn_house.json"))
    return parser.parse_args()


def _build(place: Path, bits: int, learnable: str) -> Path:
    """Build the bundle, with something to learn in it, and with examples of what it can do."""
    if (place / "bundle").is_dir():
        return place / "bundle"
    place.mkdir(exist_ok=True)
    write_known(place / "known.jsonl")
    wanted = f"{learnable},remember={place / 'known.jsonl'}"
    asked_for = ("--bits", str(bits), "--calibrate", str(CALIBRATION), "--learnable", wanted)
    command = ("-m", "onhand", "build", str(_MODEL), "-o", str(place / "bundle"), *asked_for)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return place / "bundle"


def _others(count: int) -> list[Example]:
    """Draw commands such as the held-out ones, and none of them: settings are chosen on these."""
    held = {one.command for one in read_examples(HELD_OUT)}
    found: dict[str, Example] = {}
    for one in examples(_CHOOSING_SEED, "held"):
        if len(found) == count:
            break
        if one.command not in held:
            found.setdefault(one.command, one)
    return list(found.values())


def _once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was made before, or make it and keep it."""
    if not path.exists():
        made = make()
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(made), encoding="utf-8")
        unfinished.replace(path)
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def _kept(
    bundle: Path, place: Path, seed: int, old: Sequence[Example], given: argparse.Namespace
) -> dict[str, Any]:
    """Return a round, of which all that was made before with the same settings is kept."""
    told = {
        name: str(value)
        for name, value in sorted(vars(given).items())
        if name not in ("at_once", "first", "json", "keep", "out", "seeds")
    }
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
    work = place / f"seed-{seed}-{digest}"
    work.mkdir(exist_ok=True)
    return _once(work.with_suffix(".json"), lambda: _round(bundle, work, seed, old, given))


def _round(
    bundle: Path, place: Path, seed: int, old: Sequence[Example], given: argparse.Namespace
) -> dict[str, Any]:
    """Teach one draw of examples with every method, and ask."""
    write_lines(place / "taught.jsonl", taught(seed))
    new = asked(seed, each=given.new // len(NEWCOMERS))
    before = _once(place / "before.json", lambda: _shares(_answered(bundle, None, new)))
    found: dict[str, Any] = {"seed": seed, "new_before": before}
    sys.stderr.write(f"seed {seed}: {json.dumps(before)}\n")
    methods = {"protected": given.method} | ({} if given.choose else {"naive": METHODS["naive"]})
    for name, method in methods.items():
        found[name] = _taught_by(name, method, bundle, place, seed, given)
        home, version = place / name, found[name]["version"]
        for kind, commands in (("new", new), ("old", old)):
            found[name][kind] = _once(
                place / f"{name}-{kind}.json",
                partial(_shares_after, bundle, home, version, commands),
            )
        sys.stderr.write(f"seed {seed}, {name}: {json.dumps(found[name])}\n")
    return found


def _taught_by(
    name: str, method: str, bundle: Path, place: Path, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Learn with one method; a training that was broken off goes on."""
    settings = {one: getattr(given, one) for one in _SETTINGS} | {"seed": seed, "method": method}
    if name == "naive":
        # Without a memory there is nothing to rehearse, and without a scope all changes.
        settings |= {"rehearse": 0, "scope": False}
    told = (json.dumps(settings), str(given.at_once))
    home, data = place / name, place / "taught.jsonl"
    return _once(place / f"{name}.json", lambda: _learn(bundle, data, home, *told))


def _shares_after(
    bundle: Path, home: Path, version: int, commands: Sequence[Example]
) -> dict[str, float]:
    return _shares(_answered(bundle, home, commands, version=version))


def _learn(bundle: Path, data: Path, home: Path, *told: str) -> dict[str, Any]:
    """Learn in a process of its own."""
    made = subprocess.run(
        [sys.executable, "-m", _CHILD, str(bundle), str(data), str(home), *told],
        check=True,
        capture_output=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(made.stdout)
    return answer


def _answered(
    bundle: Path, home: Path | None, examples: Sequence[Example], *, version: int = 0
) -> Scores:
    """Ask the bundle, as it was built or as it has learned, whether or not its gate was passed."""
    # A model so small is slower on more threads, where others compute beside it.
    with open_text(bundle, home=home, version=version, threads=1, trials=False) as session:
        return score(
            examples,
            lambda command: session.complete([Message("user", command)], max_tokens=_MAX_TOKENS),
        )


def _shares(scores: Scores) -> dict[str, float]:
    """Return the share that is right, of all and of each newcomer."""
    found = {"all": scores.share()}
    for name in NEWCOMERS:
        groups = [f"{language} {name}" for language in ("en", "zh")]
        if total := sum(scores.total.get(group, 0) for group in groups):
            found[name] = sum(scores.right.get(group, 0) for group in groups) / total
    return found


def summary(old_before: float, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures over all seeds.

    Args:
        old_before: share of the old commands that was right before.
        rounds: what each seed gave.
    """

    def lost(name: str) -> list[float]:
        return [100 * (old_before - one[name]["old"]["all"]) for one in rounds]

    series = {
        "new_exact_match_before": [one["new_before"]["all"] for one in rounds],
        "new_exact_match": [one["protected"]["new"]["all"] for one in rounds],
        "old_lost_points": lost("protected"),
        "duration_s": [one["protected"]["duration_s"] for one in rounds],
        "energy_j": [one["protected"]["energy_j"] for one in rounds],
    }
    if all("naive" in one for one in rounds):
        series["naive_new_exact_match"] = [one["naive"]["new"]["all"] for one in rounds]
        series["naive_old_lost_points"] = lost("naive")
    measured = {name: values for name, values in series.items() if None not in values}
    return {
        "old_exact_match_before": old_before,
        **{name: statistics.fmean(values) for name, values in measured.items()},
        **{
            f"{name}_deviation": statistics.stdev(values) if len(values) > 1 else 0.0
            for name, values in measured.items()
        },
        "energy_estimated": any(one["protected"]["energy_estimated"] for one in rounds),
        "peak_memory_bytes": max(one["protected"]["peak_memory_bytes"] for one in rounds),
        "torch_imported": any(
            one[name]["torch_imported"] for one in rounds for name in METHODS if name in one
        ),
    }


def table(results: Mapping[str, Any]) -> str:
    """Lay the figures out for people."""

    def row(title: str, name: str, form: str) -> str:
        spread = results[f"{name}_deviation"]
        return f"{title:44} {results[name]:{form}}  deviation {spread:{form}}"

    energy = "estimated" if results["energy_estimated"] else "measured"
    lines = [
        f"old commands right before                    {results['old_exact_match_before']:.1%}",
        row("new commands right before", "new_exact_match_before", ".1%"),
        row("new commands right after", "new_exact_match", ".1%"),
        row("old commands lost, points", "old_lost_points", ".2f"),
        row("seconds of learning", "duration_s", ".1f"),
    ]
    if "naive_new_exact_match" in results:
        lines += [
            row("new commands right after, unprotected", "naive_new_exact_match", ".1%"),
            row("old commands lost, points, unprotected", "naive_old_lost_points", ".2f"),
        ]
    if "energy_j" in results:
        lines.append(row(f"joules of learning, {energy}", "energy_j", ".1f"))
    lines += [
        f"highest memory of learning, MB               {results['peak_memory_bytes'] / 1e6:.0f}",
        f"torch imported by the device                 {results['torch_imported']}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
