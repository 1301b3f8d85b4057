"""How much of what is personal is found, and how much of the rest is taken for it.

    python -m benchmarks.detectors [--seed 1] [--of-each 40] [--json] [--out FILE.json]

Sentences in English and Chinese are made from a seed (`benchmarks/detector_texts.py`); half of them
hold one value of a kind, half something that only looks like one. A value is found where a find of
its kind covers it whole; any other find is a false one. Precision of a kind is the share of its
finds that are right. The lines of wikitext-2's test text (`ONHAND_ASSETS`) hold hardly anything
personal: every line with a find counts as a false alarm, and the finds are listed by kind.
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.detector_texts import Sentence, sentences
from onhand.device.privacy.detectors import DETECTORS, find_all

__all__ = ["alarms", "main", "scored", "table"]

RESULTS = Path(__file__).parent / "results" / "detectors.json"


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--of-each", type=int, default=40, help="sentences of a kind and language")
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to keep the figures")
    given = parser.parse_args()
    made = sentences(seed=given.seed, of_each=given.of_each)
    results: dict[str, Any] = {
        "command": f"python -m benchmarks.detectors --seed {given.seed} --of-each {given.of_each}",
        **scored(made),
    }
    assets = os.environ.get("ONHAND_ASSETS")
    if assets is None:
        print("ONHAND_ASSETS is not set: false alarms on wikitext-2 are not counted")
    else:
        text = (Path(assets) / "wikitext2" / "test.txt").read_text(encoding="utf-8")
        results["wikitext2"] = alarms([line for line in text.splitlines() if line.strip()])
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(results) if given.json else table(results))


def scored(made: Sequence[Sentence]) -> dict[str, Any]:
    """Return recall and precision by kind and language.

    Args:
        made: sentences.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    hard_alarms: list[str] = []
    for sentence in made:
        finds = find_all(sentence.text)
        right = [
            one
            for one in finds
            if one.kind == sentence.kind and one.start <= sentence.start and one.end >= sentence.end
        ]
        if sentence.kind is not None:
            counts[sentence.kind, sentence.language, "made"] += 1
            counts[sentence.kind, sentence.language, "found"] += bool(right)
        for one in finds:
            is_right = one in right
            counts[one.kind, sentence.language, "right" if is_right else "false"] += 1
        if sentence.kind is None and finds:
            hard_alarms.append(sentence.text)
    n_hard = sum(sentence.kind is None for sentence in made)
    return {
        "n_sentences": len(made),
        "n_without": n_hard,
        "false_alarms_without": len(hard_alarms),
        "kinds": {
            kind: {language: _figures(counts, kind, language) for language in ("en", "zh")}
            for kind in DETECTORS
        },
    }


def _figures(counts: Counter[tuple[str, str, str]], kind: str, language: str) -> dict[str, Any]:
    made, found = counts[kind, language, "made"], counts[kind, language, "found"]
    right, false = counts[kind, language, "right"], counts[kind, language, "false"]
    return {
        "made": made,
        "found": found,
        "false": false,
        "recall": found / made if made else None,
        "precision": right / (right + false) if right + false else None,
    }


def alarms(lines: Sequence[str]) -> dict[str, Any]:
    """Return how many lines have a find, by kind.

    Args:
        lines: that are not empty.
    """
    begun = time.perf_counter()
    finds = [find_all(line) for line in lines]
    taken_s = time.perf_counter() - begun
    return {
        "lines": len(lines),
        "lines_with_alarm": sum(bool(one) for one in finds),
        "share_without_alarm": sum(not one for one in finds) / len(lines),
        "by_kind": dict(Counter(one.kind for found in finds for one in found)),
        "letters_per_s": sum(map(len, lines)) / taken_s,
    }


def table(results: dict[str, Any]) -> str:
    """Return the figures as a table of Markdown."""
    rows = ["| kind | English: recall | precision | Chinese: recall | precision |"]
    rows.append("|---|---|---|---|---|")
    for kind, by_language in results["kinds"].items():
        cells = [kind]
        for language in ("en", "zh"):
            one = by_language[language]
            recall, precision = (
                "-" if value is None else f"{value * 100:.1f} %"
                for value in (one["recall"], one["precision"])
            )
            cells += [f"{recall} of {one['made']}", precision]
        rows.append(f"| {' | '.join(cells)} |")
    told = f"{results['false_alarms_without']} of {results['n_without']} sentences without any"
    lines = [*rows, "", f"False alarms: {told} personal value"]
    if (wiki := results.get("wikitext2")) is not None:
        told = f"{wiki['lines_with_alarm']} of {wiki['lines']} lines of wikitext-2's test text"
        lines[-1] += f"; {told}"
    return "\n".join([*lines[:-1], f"{lines[-1]}."])


if __name__ == "__main__":
    main()
