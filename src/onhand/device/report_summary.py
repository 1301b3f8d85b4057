"""A report in plain words, and its four evaluations as rows for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from onhand.core.evaluation import Evaluation, EvaluationName
from onhand.core.measurement import Measurement
from onhand.device.report_kinds import figure_name, show_figure
from onhand.device.report_records import Report
from onhand.device.report_view import LimitRow, report_limits, report_rows

__all__ = ["EvaluationRow", "evaluation_rows", "plain_summary"]

_TITLES: Mapping[EvaluationName, str] = {
    "compression": "Compression",
    "optimisation": "Optimisation",
    "hardware": "Hardware",
    "interaction": "Interaction",
}
_OUTCOMES: Mapping[EvaluationName, str] = {
    "compression": "accuracy_kept",
    "optimisation": "efficiency",
    "hardware": "energy_used",
    "interaction": "response",
}
_RATIOS: Mapping[EvaluationName, str] = {
    "compression": "C = N1/N2",
    "optimisation": "O = T2/T1",
    "hardware": "H = T2/T1",
    "interaction": "S = L2/L1",
}
_RULES: Mapping[EvaluationName, str] = {
    "compression": "1 - (N1 - N2) / N1",
    "optimisation": "1 + (T1 - T2) / T1",
    "hardware": "1 - (T1 - T2) / T1",
    "interaction": "1 + (L1 - L2) / L1",
}
_STATES: Mapping[EvaluationName, tuple[str, str]] = {
    "compression": ("the original's bytes", "the bundle's bytes"),
    "optimisation": ("the original", "the compressed model, run the same way"),
    "hardware": ("the bundle on the plain way", "on the chosen way"),
    "interaction": ("the wait without anything remembered", "with it"),
}
# More than this share of what memory gives, and reading the weights is what takes the time.
_BOUND = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One of the four evaluations as text.

    Attributes:
        title: "Compression" and so on.
        states: state 1 and state 2, with their values.
        ratio: such as "C = N1/N2 = 3.35x"; "not measured" where it was not.
        outcome: what the rule speaks of, such as "Accuracy kept".
        measured: its measured value; "not measured" where there is none.
        is_estimated: whether a formula gave it.
        rule: the rule's formula.
        predicted: what the rule says; "" without a ratio.
        off: how far the rule is off; "" where one of the two is missing.
        missing: what is to be known of it, or why something was not measured.
    """

    title: str
    states: str
    ratio: str
    outcome: str
    measured: str
    is_estimated: bool
    rule: str
    predicted: str
    off: str
    missing: str


def evaluation_rows(report: Report) -> list[EvaluationRow]:
    """Return the four evaluations of a report, as far as it has them."""
    return [_row(found) for found in report.evidence.evaluation]


def _row(found: Evaluation) -> EvaluationRow:
    outcome = _OUTCOMES[found.model]
    predicted = "" if found.predicted is None else show_figure(outcome, found.predicted)
    off = ""
    if found.outcome is not None and found.predicted is not None:
        off = _off(outcome, found.predicted, found.outcome.value)
    return EvaluationRow(
        title=_TITLES[found.model],
        states="; ".join(
            f"{words}: {_shown(figure)}"
            for words, figure in zip(_STATES[found.model], (found.before, found.after), strict=True)
        ),
        ratio=f"{_RATIOS[found.model]} = {_shown(found.ratio)}"
        if found.ratio is not None
        else "not measured",
        outcome=figure_name(outcome),
        measured=_shown(found.outcome),
        is_estimated=found.outcome is not None and found.outcome.estimated,
        rule=_RULES[found.model],
        predicted=predicted,
        off=off,
        missing=found.missing,
    )


def _shown(figure: Measurement | None) -> str:
    if figure is None:
        return "not measured"
    return ("about " if figure.estimated else "") + show_figure(figure.name, figure.value)


def _off(outcome: str, predicted: float, measured: float) -> str:
    """Say how far the rule is off: in points of shares, else as a ratio."""
    if outcome in {"accuracy_kept", "energy_used"}:
        return f"{(predicted - measured) * 100:+.1f} points"
    if not measured > 0:
        return ""
    return f"{(predicted / measured - 1) * 100:+.0f} %"


def plain_summary(report: Report) -> list[str]:
    """Say in three to five sentences what a bundle is, costs and lost, and what limits it."""
    sentences = (
        _what_it_is(report),
        _what_it_costs(report),
        _what_it_lost(report),
        _verdict(report),
        _what_limits(report),
    )
    return [sentence for sentence in sentences if sentence]


def _what_it_is(report: Report) -> str:
    source, variant = report.source, report.variants[report.default_variant]
    bits = sorted({matrix.bits for matrix in variant.matrices})
    stored = ""
    if bits:
        width = f"{bits[0]} bits" if len(bits) == 1 else f"{bits[0]} to {bits[-1]} bits"
        stored = f", its weights stored in {width}"
    kind = "network" if report.kind == "network" else "language model"
    return (
        f"{report.name} is a {kind} ({source.family}) of {_count(source.n_parameters)} "
        f"parameters{stored} (variant {report.default_variant})."
    )


def _count(n: int) -> str:
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if n >= size:
            return f"{n / size:.3g} {word}"
    return f"{n:,}"


def _what_it_costs(report: Report) -> str:
    rows = {row.measurement: row for row in report_rows(report)}
    figures = report.variants[report.default_variant].figures
    parts: list[str] = []
    for name, words in (
        ("size_bytes", "takes {} on disk"),
        ("peak_memory_bytes", "needs at most {} of memory"),
        ("decode_tokens_per_s", "writes {}"),
        ("latency_s", "answers in {}"),
    ):
        if name in figures:
            row = rows[name]
            beside = f" ({row.ratio} the original's)" if row.ratio else ""
            parts.append(words.format(row.variant.value) + beside)
    if not parts:
        return "What it costs was not measured."
    threads = f"{report.engine.threads} thread{'' if report.engine.threads == 1 else 's'}"
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"It {listed}, in the {report.engine.name} engine with {threads}."


def _what_it_lost(report: Report) -> str:
    kept = next((e.outcome for e in report.evidence.evaluation if e.model == "compression"), None)
    figures = report.variants[report.default_variant].figures
    parts: list[str] = []
    if kept is not None:
        parts.append(f"it keeps {show_figure(kept.name, kept.value)} of the original's accuracy")
    for name, words in (
        ("perplexity_increase", "changes perplexity by {}"),
        ("top1_agreement", "makes the same first choice for {} of the tokens"),
        ("agreement", "agrees with it on {}"),
    ):
        if name in figures:
            parts.append(words.format(show_figure(name, figures[name].value)))
    if not parts:
        return "What it lost against the original is not known: nothing judged it."
    if kept is None:
        parts[0] = f"it {parts[0]}"
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    n, counted = report.heldout.n_tokens, report.heldout.counted
    return f"On {n:,} {counted} that were held out {listed}."


def _verdict(report: Report) -> str:
    limits = report_limits(report)
    if not limits:
        return "No budget was set."
    failed = [f"{row.name} ({row.why})" for row in limits if not row.holds]
    if failed:
        return f"The budget does not hold: {'; '.join(failed)}."
    tightest = min(limits, key=_room)
    many = "its only limit" if len(limits) == 1 else f"all {len(limits)} limits"
    return f"The budget holds, {many}; the tightest is {tightest.name} with {tightest.why}."


def _room(row: LimitRow) -> float:
    number = row.why.partition("%")[0]
    return float(number) if number.isdigit() else 0.0


def _what_limits(report: Report) -> str:
    """Say whether reading the weights or computing with them takes the time."""
    figures = report.variants[report.default_variant].figures
    speed, size = figures.get("decode_tokens_per_s"), figures.get("size_bytes")
    given = report.read_bandwidth.value
    if speed is None or size is None or given <= 0:
        return ""
    read = size.value * speed.value
    share = read / given
    shown = f"{show_figure('read_bandwidth', read)}, {share:.0%} of what its memory gives"
    if share > _BOUND:
        return (
            f"Writing reads up to {shown}: memory bandwidth limits its speed, so fewer bits would "
            "make it faster."
        )
    return f"Writing reads at most {shown}: computing and overhead limit its speed, not the memory."
