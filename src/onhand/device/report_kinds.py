"""How each figure of a report is called and shown to people."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from onhand.core.units import format_bytes, format_seconds

__all__ = [
    "KINDS",
    "NETWORK",
    "NETWORK_ALWAYS",
    "FigureKind",
    "figure_name",
    "kind_of",
    "show_figure",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureKind:
    """How one figure is shown.

    Attributes:
        name: what people call it.
        show: value -> text with its unit.
        more_is_better: whether a larger value is.
        against: whether it is a comparison with the original itself, which has no such figure.
    """

    name: str
    show: Callable[[float], str]
    more_is_better: bool = False
    against: bool = False


def _rate(value: float) -> str:
    return f"{value:.1f} tokens/s" if value < 1000 else f"{value:,.0f} tokens/s"


def _joules(value: float) -> str:
    return f"{value * 1000:.3g} mJ" if abs(value) < 1 else f"{value:.3g} J"


def _perplexity(value: float) -> str:
    return f"{value:.3f}" if value < 1000 else f"{value:,.0f}"


def _small(value: float) -> str:
    return f"{value:.3g}"


def _times(value: float) -> str:
    return f"{value:.2f}x" if 0.095 <= value < 100 else f"{value:.3g}x"


def _percent(value: float) -> str:
    return f"{value * 100:.2f} %"


_SHARE = partial(FigureKind, show=_percent)
_SHARED = {
    "size_bytes": FigureKind(name="Size on disk", show=format_bytes),
    "peak_memory_bytes": FigureKind(name="Peak memory", show=format_bytes),
}
NETWORK = {
    **_SHARED,
    "quality_loss": FigureKind(name="Quality lost", show=_percent, against=True),
    "latency_s": FigureKind(name="Latency", show=format_seconds),
    "runs_per_s": FigureKind(
        name="Runs per second", show=lambda value: f"{value:,.0f}/s", more_is_better=True
    ),
    "load_s": FigureKind(name="Load time", show=format_seconds),
    "cold_start_s": FigureKind(name="Cold start", show=format_seconds),
    "energy_j_per_run": FigureKind(name="Energy per run", show=_joules),
    "accuracy": FigureKind(name="Accuracy", show=_percent, more_is_better=True),
    "accuracy_loss": FigureKind(name="Accuracy lost", show=_percent, against=True),
    "agreement": _SHARE(name="Agreement with the original", more_is_better=True, against=True),
    "map_50": FigureKind(name="mAP at 0.5", show=_percent, more_is_better=True),
    "map_50_loss": FigureKind(name="mAP at 0.5 lost", show=_percent, against=True),
    "map_50_95": FigureKind(name="mAP at 0.5 to 0.95", show=_percent, more_is_better=True),
    "box_agreement": _SHARE(name="Boxes as in the original", more_is_better=True, against=True),
    "cosine_similarity": FigureKind(
        name="Cosine similarity",
        show=lambda value: f"{value:.4f}",
        more_is_better=True,
        against=True,
    ),
    "relative_error": FigureKind(name="Relative error", show=_percent, against=True),
}
# That every network's report shows, measured or not.
NETWORK_ALWAYS = tuple(NETWORK)[:7]
KINDS = {
    **_SHARED,
    "perplexity": FigureKind(name="Perplexity", show=_perplexity),
    "perplexity_increase": FigureKind(
        name="Perplexity increase", show=lambda value: f"{value * 100:+.2f} %", against=True
    ),
    "kl_divergence": FigureKind(
        name="KL divergence", show=lambda value: f"{value:.3g} nat", against=True
    ),
    "top1_agreement": _SHARE(name="Top-1 agreement", more_is_better=True, against=True),
    "flip_rate": FigureKind(
        name="Flip rate", show=lambda value: f"{value * 100:.2f} %", against=True
    ),
    "load_s": FigureKind(name="Load time", show=format_seconds),
    "cold_start_s": FigureKind(name="Cold start", show=format_seconds),
    "time_to_first_token_s": FigureKind(name="Time to first token", show=format_seconds),
    "prefill_tokens_per_s": FigureKind(name="Prefill speed", show=_rate, more_is_better=True),
    "decode_tokens_per_s": FigureKind(name="Decode speed", show=_rate, more_is_better=True),
    "energy_j_per_token": FigureKind(name="Energy per token", show=_joules),
}
# Figures that have no row of their own.
_OTHERS = {
    "original_perplexity": FigureKind(name="Original perplexity", show=_perplexity, against=True),
    "original_accuracy": FigureKind(name="Original accuracy", show=_percent, against=True),
    "original_map_50": _SHARE(name="Original mAP at 0.5", against=True),
    "original_map_50_95": _SHARE(name="Original mAP at 0.5 to 0.95", against=True),
    "accuracy_kept": _SHARE(name="Accuracy kept", more_is_better=True, against=True),
    "efficiency": FigureKind(name="Efficiency", show=_times, more_is_better=True, against=True),
    "energy_used": _SHARE(name="Energy used", against=True),
    "response": FigureKind(name="Response", show=_times, more_is_better=True, against=True),
    "compression_ratio": FigureKind(name="Compression ratio C", show=_times, against=True),
    "optimisation_ratio": FigureKind(name="Optimisation ratio O", show=_times, against=True),
    "hardware_ratio": FigureKind(name="Hardware ratio H", show=_times, against=True),
    "interaction_ratio": FigureKind(name="Interaction ratio S", show=_times, against=True),
    "cold_first_token_s": FigureKind(name="First token, cold", show=format_seconds),
    "warm_first_token_s": FigureKind(name="First token, warm", show=format_seconds),
    "cold_answer_s": FigureKind(name="Answer, cold", show=format_seconds),
    "warm_answer_s": FigureKind(name="Answer, warm", show=format_seconds),
    "answer_s": FigureKind(name="Time of an answer", show=format_seconds),
    "token_s": FigureKind(name="Time of a token", show=format_seconds),
    "answer_energy_j": FigureKind(name="Energy of an answer", show=_joules),
    "read_bandwidth": FigureKind(
        name="Read bandwidth",
        show=lambda value: f"{value / 1e9:.1f} GB/s",
        more_is_better=True,
    ),
}


def show_figure(measurement: str, value: float) -> str:
    """Write a value for people, in the unit that its measurement is read in."""
    return kind_of(measurement).show(value)


def figure_name(measurement: str) -> str:
    """Return what people call a measurement."""
    return kind_of(measurement).name


def kind_of(measurement: str) -> FigureKind:
    """Return how a measurement is shown; one that is not known is a plain number."""
    name = measurement.replace("_", " ").capitalize()
    return (NETWORK | KINDS | _OTHERS).get(
        measurement, FigureKind(name=name, show=_small, against=True)
    )
