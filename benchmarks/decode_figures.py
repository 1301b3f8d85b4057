"""Medians, ratios and curves of `benchmarks.decode`, and how people read them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.decode_models import BF16, LLAMA, OURS
from benchmarks.decode_rounds import SPEEDS

__all__ = ["compared", "cost_of_context", "cost_of_rows", "plain", "summary", "table"]

# Figure in the samples -> the short name that its ratios have.
SHORT = {
    "decode_tokens_per_s": "decode",
    "prefill_tokens_per_s": "prefill",
    "first_token_s": "first_token",
    "energy_j_per_token": "energy",
}
RAW = ("samples", "verify", "contexts")  # every single value; the rest are plain numbers


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain numbers: medians, ratios of pairs of one round, quartiles, and curves."""
    samples = found["samples"]
    made = compared(samples)
    read = [one * found["bytes_per_token"] for one in samples[OURS]["decode_tokens_per_s"]]
    bandwidth = statistics.median(found["read_bandwidth"])
    made["bandwidth_fraction"] = statistics.median(read) / bandwidth
    made["bandwidth_fraction_quartiles"] = _quartiles([one / bandwidth for one in read])
    if "disturbed" in found:
        made["disturbed"] = {**compared(found["disturbed"]), "samples": found["disturbed"]}
    for name, rows in found["verify"].items():
        made[f"cost_of_rows_{_key(name)}"] = cost_of_rows(rows)
    for name, contexts in found["contexts"].items():
        made[f"cost_of_context_{_key(name)}"] = cost_of_context(contexts)
    return made


def compared(samples: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Compare the engine `native` with each other one, and with the best that is not ours.

    Args:
        samples: engine -> figure -> one value for each round.

    Returns:
        For each figure the medians of all engines; ours over theirs, the median of the rounds'
        ratios, and their quartiles; of prefill, where ours was measured in bf16 as well, those of
        that way too. Of speeds the best peer has the highest median, and ratios above 1 are good;
        of seconds and joules it has the lowest, and ratios below 1 are.
    """
    peers = [name for name in samples if not name.startswith("onhand:")]
    made: dict[str, Any] = {}
    for figure in samples[OURS]:
        short, best = SHORT[figure], max if figure in SPEEDS else min
        medians = {name: statistics.median(one[figure]) for name, one in samples.items()}
        made[figure] = medians
        others = {_key(name): name for name in samples}
        if peers:
            others["best"] = best(peers, key=lambda name: medians[name])
        ways = {short: OURS}
        if short == "prefill" and BF16 in samples:
            ways["prefill_bf16"] = BF16
        for way, own in ways.items():
            for key, name in others.items():
                if name != own:
                    pairs = zip(samples[own][figure], samples[name][figure], strict=True)
                    ratios = [ours / theirs for ours, theirs in pairs]
                    made[f"{way}_ratio_vs_{key}"] = statistics.median(ratios)
                    made[f"{way}_ratio_vs_{key}_quartiles"] = _quartiles(ratios)
    return made


def cost_of_rows(rows: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Return the median step of n rows over that of one.

    Args:
        rows: seconds of each run, for each number of rows; 1 is one of them.
    """
    one = statistics.median(rows[1])
    return {n: statistics.median(seconds) / one for n, seconds in rows.items()}


def cost_of_context(contexts: Mapping[int, Sequence[float]]) -> dict[int, dict[str, float]]:
    """Return the median step behind n tokens: `ms`, and `relative` to the first of them.

    Args:
        contexts: seconds of each run, for each length of context, the shortest first.
    """
    medians = {n: statistics.median(seconds) for n, seconds in contexts.items()}
    first = next(iter(medians.values()), 1.0)
    return {n: {"ms": one * 1e3, "relative": one / first} for n, one in medians.items()}


def plain(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results without single values."""
    kept = {key: value for key, value in results.items() if key not in RAW}
    if "disturbed" in kept:
        kept["disturbed"] = plain(kept["disturbed"])
    return kept


def table(results: Mapping[str, Any]) -> str:
    """Lay the figures out for people."""
    given = f"{results['threads']} threads, groups of {results['group']}"
    lines = [f"{results['shape']}, {given}"]
    for name in results["samples"]:
        first, energy = (results[key][name] for key in ("first_token_s", "energy_j_per_token"))
        memory = results["peak_memory_bytes"][name] / 1e6
        lines.append(
            f"{_speeds(results, name)}, first token {first:.2f} s, "
            f"{energy * 1e3:.1f} mJ a token, peak memory {memory:.0f} MB"
        )
    lines += _ratios(results)
    if "disturbed" in results:
        disturbed = results["disturbed"]
        lines.append("  half of the cores busy:")
        lines += [f"  {_speeds(disturbed, name)}" for name in disturbed["samples"]]
        lines += [f"  {line}" for line in _ratios(disturbed)]
    for key, value in results.items():
        if key.startswith("cost_of_rows"):
            lines.append(f"  {key}: {', '.join(f'{n}: {cost:.2f}' for n, cost in value.items())}")
        elif key.startswith("cost_of_context"):
            costs = (f"{n}: {c['ms']:.2f} ms ({c['relative']:.2f})" for n, c in value.items())
            lines.append(f"  {key}: {', '.join(costs)}")
    lines.append(f"  energy is from {results['energy']['source']}: {results['energy']['how']}")
    return "\n".join([*lines, *(f"  {note}" for note in results["notes"])])


def _speeds(results: Mapping[str, Any], name: str) -> str:
    decode, prefill = (results[figure][name] for figure in SPEEDS)
    return f"  {name:18} decode {decode:7.1f}, prefill {prefill:7.1f} tokens/s"


def _ratios(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in results.items():
        if f"{key}_quartiles" in results:
            low, high = results[f"{key}_quartiles"]
            lines.append(f"  {key}: {value:.2f} (quartiles {low:.2f} to {high:.2f})")
    return lines


def _key(name: str) -> str:
    return {LLAMA: "llama_cpp"}.get(name, name.removeprefix("onhand:").replace("+", "_"))


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4)
    return [low, high]
