"""Routing policies on RouteLLM's evaluations: quality kept against the share sent to the cloud.

    python -m benchmarks.routing [--assets ../shared/assets] [--json] [--out FILE.json]

The data say, for each question of MMLU and GSM8K, whether Mixtral-8x7B (here: the device) and
GPT-4-1106 (here: the cloud) answered right. Half of the questions, drawn by a seed, is what a score
may learn from and what its threshold is calibrated on; the other half judges. Quality is the share
of right answers; what is gained is a share of the way from the device's to the cloud's.

A policy can be replayed only if it decides by what the data hold, the question's text. So these
can: `local-only` and `cloud-only`, the ends of every curve; and thresholds on a score of the text,
by the code that calibrates the cascade's threshold. What cannot is listed with the reason.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing_scores import (
    Questions,
    Scores,
    by_length,
    by_neighbours,
    by_topic,
    by_words,
    read_questions,
)
from onhand.device.serving.routing.confidence import Judged, calibrate, threshold_for_share

__all__ = ["NOT_REPLAYED", "curve_of", "main", "quality_at", "recovered", "summary"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
SHARES = tuple(round(0.05 * i, 2) for i in range(21))
CALIBRATED = (0.1, 0.25, 0.5)
KEPT = (0.5, 0.8, 0.9)
BOOTSTRAP = 300
NOT_REPLAYED = {
    "cascade": "the device's token probabilities are not in the data; its calibration is used here "
    "on scores of the text instead",
    "race": "times of both answers are not in the data",
    "hedge": "times of both answers are not in the data",
    "fastest": "times of both answers are not in the data",
    "balanced": "the load of the device is not in the data",
    "cheapest": "with the device free of charge it is local-only",
    "adaptive": "battery, deadline, load and confidence are not in the data",
    "local-first": "without failures it is local-only",
    "cloud-first": "without failures it is cloud-only",
    "an encoder's neighbours": "no encoder's weights are among the assets; neighbours are found by "
    "their words",
}
Scored = Callable[[Questions, Questions], tuple[Scores, Scores]]


def main() -> None:
    """Run the benchmark and print tables, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--sets", nargs="+", choices=("mmlu", "gsm8k"), default=["mmlu", "gsm8k"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=0, help="questions of a set; 0 for all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, object] = {
        "command": "python -m benchmarks.routing --json",
        "seed": given.seed,
        "weak": "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "strong": "gpt-4-1106-preview",
        "not_replayed": NOT_REPLAYED,
    }
    for name in given.sets:
        questions = read_questions(given.assets / "routellm-evals", name)
        result[name] = replayed(questions, seed=given.seed, most=given.most)
        if not given.json:
            sys.stdout.write(table(name, result[name]))  # type: ignore[arg-type] # made above
    if given.json:
        sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def replayed(questions: Questions, *, seed: int, most: int) -> Mapping[str, object]:
    """Return every policy's figures on the judging half of a set."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(questions.texts))
    if most:
        order = order[:most]
    chosen = np.zeros(len(questions.texts), dtype=bool)
    chosen[order[: len(order) // 2]] = True
    judging = np.zeros_like(chosen)
    judging[order[len(order) // 2 :]] = True
    seen, judged = questions.part(chosen), questions.part(judging)
    policies: dict[str, object] = {}
    for name, scored in _policies(rng).items():
        on_seen, on_judged = scored(seen, judged)
        policies[name] = {
            **summary(judged, on_judged, rng),
            "calibrated": calibrated(seen, on_seen, judged, on_judged),
        }
    return {
        "questions": {"learned_from": len(seen.texts), "judged": len(judged.texts)},
        "quality": {
            "local-only": float(judged.weak.mean()),
            "cloud-only": float(judged.strong.mean()),
            "best of both": float(np.maximum(judged.weak, judged.strong).mean()),
        },
        "policies": policies,
    }


def _policies(rng: np.random.Generator) -> Mapping[str, Scored]:
    def learned(score: Callable[[Questions, Questions], Scores]) -> Scored:
        # A score learned on a half looks too good on it: its threshold is found by two quarters,
        # each scored by what was learned from the other.
        def scored(seen: Questions, judged: Questions) -> tuple[Scores, Scores]:
            is_first = rng.permutation(len(seen.texts)) % 2 == 0
            on_seen = np.empty(len(seen.texts))
            first, second = seen.part(is_first), seen.part(~is_first)
            on_seen[is_first] = score(second, first)
            on_seen[~is_first] = score(first, second)
            return on_seen, score(seen, judged)

        return scored

    return {
        "random": lambda seen, judged: (
            rng.random(len(seen.texts)), rng.random(len(judged.texts)),
        ),
        "length": lambda seen, judged: (by_length(seen), by_length(judged)),
        "words": learned(by_words),
        "neighbours": learned(by_neighbours),
        "topic, told": learned(by_topic),
        "oracle": lambda seen, judged: (seen.weak - seen.strong, judged.weak - judged.strong),
    }  # fmt: skip


def curve_of(questions: Questions, scores: Scores) -> NDArray[np.float64]:
    """Return the quality with 0, 1, ... N questions sent, the lowest scores first.

    Of equal scores a mean over their orders: nothing is won by how they happen to lie.
    """
    order = np.argsort(scores, kind="stable")
    gains = (questions.strong - questions.weak)[order]
    _, firsts, counts = np.unique(scores[order], return_index=True, return_counts=True)
    means = np.add.reduceat(gains, firsts) / counts
    even = np.repeat(means, counts)
    sums = np.concatenate(([0.0], np.cumsum(even)))
    return np.asarray((questions.weak.sum() + sums) / len(order), dtype=np.float64)


def quality_at(curve: NDArray[np.float64], share: float) -> float:
    """Return the quality with a share of the questions sent."""
    return float(np.interp(share * (len(curve) - 1), np.arange(len(curve)), curve))


def recovered(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a curve as shares of the way from its first to its last quality."""
    whole = curve[-1] - curve[0]
    return np.asarray((curve - curve[0]) / (whole if whole else 1.0), dtype=np.float64)


def summary(questions: Questions, scores: Scores, rng: np.random.Generator) -> Mapping[str, object]:
    """Return a curve and what it comes to.

    `apgr` is the mean share of the way that is recovered, over all shares sent: 0.5 for chance.
    `sent_for` is the least share sent that recovers so much of the way.

    Source:
        APGR and CPT: RouteLLM, arXiv:2406.18665.
    """
    curve = curve_of(questions, scores)
    way = recovered(curve)
    sent = np.arange(len(way)) / (len(way) - 1)
    spread = []
    for _ in range(BOOTSTRAP):
        places = rng.integers(0, len(scores), len(scores))
        drawn = Questions([], [], questions.weak[places], questions.strong[places])
        spread.append(float(recovered(curve_of(drawn, scores[places])).mean()))
    low, high = np.quantile(spread, (0.025, 0.975))
    return {
        "apgr": float(way.mean()),
        "apgr_low": float(low),
        "apgr_high": float(high),
        "sent_for": {str(kept): float(sent[np.argmax(way >= kept)]) for kept in KEPT},
        "curve": [
            {
                "sent": share,
                "quality": quality_at(curve, share),
                "recovered": quality_at(way, share),
            }
            for share in SHARES
        ],
    }


def calibrated(
    seen: Questions, on_seen: Scores, judged: Questions, on_judged: Scores
) -> Sequence[Mapping[str, float]]:
    """Return what thresholds do on new questions that were found on others."""
    rows = []
    for share in CALIBRATED:
        threshold = threshold_for_share(on_seen.tolist(), share)
        rows.append({"wanted_sent": share} | _done(judged, on_judged, threshold))
    examples = [
        Judged(confidence=float(score), local=float(weak), cloud=float(strong))
        for score, weak, strong in zip(on_seen, seen.weak, seen.strong, strict=True)
    ]
    for kept in KEPT:
        found = calibrate(examples, kept=kept)
        rows.append({"wanted_recovered": kept} | _done(judged, on_judged, found.threshold))
    return rows


def _done(judged: Questions, scores: Scores, threshold: float) -> dict[str, float]:
    is_sent = scores < threshold
    quality = float(np.where(is_sent, judged.strong, judged.weak).mean())
    weak, strong = float(judged.weak.mean()), float(judged.strong.mean())
    return {
        "sent": float(is_sent.mean()),
        "quality": quality,
        "recovered": (quality - weak) / (strong - weak),
    }


def table(name: str, found: Mapping[str, Mapping[str, Mapping[str, object]]]) -> str:
    """Return the figures of a set for people."""
    quality = ", ".join(f"{who} {value:.3f}" for who, value in found["quality"].items())
    lines = [f"{name}: {quality}", f"{'policy':>14} {'APGR':>6} {'95 %':>15}  sent for 50 80 90 %"]
    for policy, one in found["policies"].items():
        sent = one["sent_for"]
        shares = " ".join(f"{value:5.0%}" for value in sent.values())  # type: ignore[attr-defined]
        spread = f"{one['apgr_low']:.3f} to {one['apgr_high']:.3f}"
        lines.append(f"{policy:>14} {one['apgr']:6.3f} {spread:>15}  {shares}")
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    main()
