"""What a device's small parts cost, measured or estimated: all that forecasts are made of."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat

__all__ = [
    "FLOAT_BITS",
    "ROWS",
    "Calibration",
    "MemoryCosts",
    "ProductRate",
    "Speed",
    "StartCosts",
    "StepCosts",
    "Stream",
    "calibration_from_json",
]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T", bound="DataclassInstance")

FLOAT_BITS: Final = 32
ROWS: Final = (1, 8, 32, 256)
"""Rows of inputs that products are timed with: a token, some, and parts of a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRate:
    """What a product costs one thread whose weights lie in its caches.

    Attributes:
        bits: of a code; 32 for floats, which have neither groups nor zero points.
        group_size: inputs that share a scale.
        symmetric: without zero points.
        rows: of the inputs.
        weight_s: seconds for each weight and row.
        output_s: seconds for each output and row, beside its weights.
    """

    bits: int
    group_size: int
    symmetric: bool
    rows: int
    weight_s: float
    output_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """How fast weights are read again and again.

    Attributes:
        threads: that read.
        working_bytes: of all that is read before the same is read again.
        bytes_per_s: read, by all threads together.
    """

    threads: int
    working_bytes: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """What a step costs one thread beside its products.

    Attributes:
        step_s: a step at all: Python's part, the choice of a token, its text.
        layer_s: a layer at all.
        value_s: one number of a row normed, rounded, activated or added.
        score_s: one number of a key, and of a value, read and multiplied.
        pair_s: a head's query and a key at all.
        meet_s: all threads wait for each other once.
        byte_s: one byte of weights comes from a farther cache than the nearest, where products
            that are timed again and again find it; beside what memory takes.
    """

    step_s: float
    layer_s: float
    value_s: float
    score_s: float
    pair_s: float
    meet_s: float
    byte_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCosts:
    """What comes before the first token.

    Attributes:
        process_s: start of a process until it opens a bundle, and what it does beside that.
        open_s: opening any bundle.
        matrix_s: opening one matrix.
        hash_bytes_per_s: files checked, by one thread.
        pack_bytes_per_s: weights put into the engine's order, by one thread.
        token_s: reading one token of a tokenizer.
    """

    process_s: float
    open_s: float
    matrix_s: float
    hash_bytes_per_s: float
    pack_bytes_per_s: float
    token_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCosts:
    """What a process holds beside weights, keys and values and what a step works in.

    Attributes:
        process_bytes: interpreter and libraries, with the smallest of models.
        token_bytes: for each token of a tokenizer.
        token_peak_bytes: the same while the tokenizer is read.
        matrix_bytes: for each matrix: names, views, places.
    """

    process_bytes: float
    token_bytes: float
    token_peak_bytes: float
    matrix_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a device is just now, by two small things that are always the same.

    Attributes:
        product_s: a product whose weights lie in the nearest cache; 0 where nobody knows.
        step_s: a step of a very small model; 0 where nobody knows.
    """

    product_s: float
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The small parts of one device.

    Attributes:
        device: the profile's name.
        products: in the formats and with the rows that were timed.
        streams: bandwidth by what is read; sorted by threads and bytes.
        read_bandwidth: as `onhand probe` measures it, for 1, 2, ... threads, at the same time.
        step: of one token.
        prompt: of many.
        text_s: a token becomes text, with a plain tokenizer; a part of what a step takes.
        start: until the first token.
        memory: of a process.
        speed: of the device as these parts say it is.
        spread: how far what was measured lay from what these parts say of it: a fraction.
        estimated: whether they follow from a profile alone.
    """

    device: str
    products: tuple[ProductRate, ...]
    streams: tuple[Stream, ...]
    read_bandwidth: tuple[float, ...]
    step: StepCosts
    prompt: StepCosts
    text_s: float
    start: StartCosts
    memory: MemoryCosts
    speed: Speed
    spread: float
    estimated: bool

    def product(self, form: GroupFormat | None, rows: int) -> tuple[float, float]:
        """Return what a weight and an output cost one thread for each row, in seconds.

        Args:
            form: of the weights; None for float32.
            rows: of the inputs; between those that were timed, what lies between.

        Returns:
            Seconds for a weight, and seconds for an output beside that.

        Raises:
            InputError: if no such product was timed.
        """
        timed = sorted(
            (rate for rate in self.products if _fits(rate, form)), key=lambda rate: rate.rows
        )
        if not timed:
            bits = 32 if form is None else form.bits
            raise InputError(f"calibration of {self.device}: no product of {bits} bits")
        below = [rate for rate in timed if rate.rows <= rows] or timed[:1]
        above = [rate for rate in timed if rate.rows >= rows] or timed[-1:]
        low, high = below[-1], above[0]
        if high.rows == low.rows:
            return low.weight_s, low.output_s
        part = math.log(rows / low.rows) / math.log(high.rows / low.rows)
        return (
            low.weight_s + part * (high.weight_s - low.weight_s),
            low.output_s + part * (high.output_s - low.output_s),
        )

    def bytes_per_s(self, working_bytes: float, threads: int) -> float:
        """Return how fast weights are read, by all threads together.

        Args:
            working_bytes: of all that is read before the same is read again.
            threads: that read.
        """
        points = self._points(threads)
        if working_bytes <= points[0].working_bytes:
            return points[0].bytes_per_s
        for low, high in itertools.pairwise(points):
            if working_bytes <= high.working_bytes:
                part = math.log(working_bytes / low.working_bytes) / math.log(
                    high.working_bytes / low.working_bytes
                )
                # Seconds for a byte lie on a line, not bytes in a second.
                slow = part / high.bytes_per_s + (1 - part) / low.bytes_per_s
                return 1 / slow
        return points[-1].bytes_per_s

    def _points(self, threads: int) -> list[Stream]:
        known = {one.threads for one in self.streams}
        nearest = max((n for n in known if n <= threads), default=min(known))
        return [one for one in self.streams if one.threads == nearest]

    def at_bandwidth(self, read_bandwidth: Sequence[float]) -> Self:
        """Return the same parts where memory is read at another speed, as caches are not.

        Args:
            read_bandwidth: for 1, 2, ... threads, as `onhand probe` measures it; those that are
                missing stay as they were.
        """
        ratios = {}
        for threads in {one.threads for one in self.streams}:
            known = min(threads, len(self.read_bandwidth))
            if known and known <= len(read_bandwidth):
                ratios[threads] = read_bandwidth[known - 1] / self.read_bandwidth[known - 1]
        return replace(self.at_memory(ratios), read_bandwidth=tuple(read_bandwidth))

    def at_memory(self, ratios: Mapping[int, float]) -> Self:
        """Return the same parts where memory is so many times as fast, as caches are not.

        Args:
            ratios: threads -> how many times; those that are missing stay as they were.
        """
        made = []
        for one in self.streams:
            if one.threads not in ratios:
                made.append(one)
                continue
            points = self._points(one.threads)
            best = max(point.bytes_per_s for point in points)
            memory_s = 1 / min(point.bytes_per_s for point in points)
            # Of what a byte costs more than in the nearest cache, memory's part is waiting.
            missed = (1 / one.bytes_per_s - 1 / best) / max(memory_s - 1 / best, 1e-30)
            slower = max(0.0, memory_s / ratios[one.threads] - 1 / best)
            made.append(replace(one, bytes_per_s=1 / (1 / best + missed * slower)))
        return replace(self, streams=tuple(made))

    def at_speed(self, now: Speed) -> Self:
        """Return the same parts where the device computes at another speed, as memory does not.

        Processors of shared machines are slower by a half for a second and quick for the next.

        Args:
            now: measured as that of the calibration was.
        """
        products = _ratio(now.product_s, self.speed.product_s)
        steps = _ratio(now.step_s, self.speed.step_s)
        return replace(
            self,
            products=tuple(
                replace(one, weight_s=products * one.weight_s, output_s=products * one.output_s)
                for one in self.products
            ),
            step=_times(self.step, steps),
            prompt=_times(self.prompt, steps),
            text_s=steps * self.text_s,
            start=StartCosts(
                process_s=steps * self.start.process_s,
                open_s=steps * self.start.open_s,
                matrix_s=steps * self.start.matrix_s,
                hash_bytes_per_s=self.start.hash_bytes_per_s / steps,
                pack_bytes_per_s=self.start.pack_bytes_per_s / steps,
                token_s=steps * self.start.token_s,
            ),
            speed=now,
        )

    def to_json(self) -> dict[str, object]:
        """Return a JSON object; `calibration_from_json` reads it."""
        return asdict(self)


def calibration_from_json(value: object) -> Calibration:
    """Read what `Calibration.to_json` wrote.

    Args:
        value: a parsed JSON value.

    Returns:
        The calibration.

    Raises:
        InputError: if it is none.
    """
    try:
        table = dict(cast(Mapping[str, object], value))
        parts = {
            "products": tuple(_filled(ProductRate, one) for one in _listed(table, "products")),
            "streams": tuple(_filled(Stream, one) for one in _listed(table, "streams")),
            "read_bandwidth": tuple(
                float(cast(float, one)) for one in _listed(table, "read_bandwidth")
            ),
            "step": _filled(StepCosts, table["step"]),
            "prompt": _filled(StepCosts, table["prompt"]),
            "start": _filled(StartCosts, table["start"]),
            "memory": _filled(MemoryCosts, table["memory"]),
            "speed": _filled(Speed, table["speed"]),
        }
        return _filled(Calibration, table | parts)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"calibration: damaged ({error}); remove it, and it is made again") from (
            error
        )


def _listed(table: Mapping[str, object], key: str) -> Sequence[object]:
    return cast(Sequence[object], table[key])


def _filled(kind: type[_T], value: object) -> _T:
    given = cast(Mapping[str, object], value)
    return kind(**{key: given[key] for key in (field.name for field in fields(kind))})


def _ratio(now: float, then: float) -> float:
    return now / then if now and then else 1.0


def _times(costs: StepCosts, by: float) -> StepCosts:
    return StepCosts(**{name: by * value for name, value in asdict(costs).items()})


def _fits(rate: ProductRate, form: GroupFormat | None) -> bool:
    if form is None:
        return rate.bits == FLOAT_BITS
    return (rate.bits, rate.group_size, rate.symmetric) == (
        form.bits,
        form.group_size,
        form.symmetric,
    )
