"""Forecasts for decoders: each matrix in each format, and the whole, on one device."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Final, Literal

from onhand.core.decoder import Decoder
from onhand.core.profile import DeviceProfile
from onhand.core.quantized import GroupFormat
from onhand.device.energy import estimate_j
from onhand.host.costs.calibration import Calibration
from onhand.host.costs.fitting import explained_s
from onhand.host.costs.memory import peak_memory_bytes, running_memory
from onhand.host.costs.products import ProductCost, decode_products, product_cost, prompt_products_s
from onhand.host.costs.roofline import estimate_calibration
from onhand.host.costs.sizes import (
    Formats,
    engine_of,
    packed_bytes,
    read_matrices,
    stored_bytes,
    variant_bytes,
)
from onhand.host.costs.work import ROWS_AT_ONCE, prompt_work, step_work

__all__ = ["DecoderCosts", "Forecast", "Limit", "MatrixCost"]

Limit = Literal["memory bandwidth", "operations", "overhead"]
_PROMPT_TOKENS: Final = 512
_GENERATED_TOKENS: Final = 128
_FULL_HEADER_BYTES: Final = 130  # of a tensor in the header of a weights file
# How much longer ONNX Runtime takes than the native engine: docs/decisions/0011, three models.
_ONNX_STEP: Final = 2.5
_ONNX_PROMPT: Final = 4.0
_ONNX_SPREAD: Final = 0.5
_SIZE_SPREAD: Final = 0.0
_MEMORY_SPREAD: Final = 0.05
_UNSEEN: Final = 0.1  # by which times spread beside what calibration shows: machines change


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCost:
    """What one matrix costs in one format.

    Attributes:
        file_bytes: in the bundle.
        memory_bytes: in the engine's memory.
        decode_s: of a token.
        prefill_s_per_token: of a long prompt.
    """

    file_bytes: int
    memory_bytes: int
    decode_s: float
    prefill_s_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What `onhand bench` would measure; the names are those of its measurements.

    Attributes:
        size_bytes: of the bundle.
        peak_memory_bytes: of a process that answers.
        time_to_first_token_s: of the prompt, where all is open.
        prefill_tokens_per_s: of the prompt.
        decode_tokens_per_s: after it.
        load_s: to open it.
        cold_start_s: from the start of a process to its first token.
        energy_j_per_token: of an answer.
        limits: name of a timed figure -> what it waits for.
        spread: name of a figure -> how far it may lie off, as a fraction of it: what calibration
            leaves unexplained, what machines change, and how slow the device's memory gets.
        estimated: whether the figures follow from a profile, or from what another engine takes,
            and not from measured parts.
    """

    size_bytes: float
    peak_memory_bytes: float
    time_to_first_token_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    load_s: float
    cold_start_s: float
    energy_j_per_token: float
    limits: Mapping[str, Limit]
    spread: Mapping[str, float]
    estimated: bool

    def figures(self) -> dict[str, float]:
        """Return name -> value of what is forecast."""
        return {name: float(getattr(self, name)) for name in FIGURES}

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return asdict(self)


FIGURES: Final = (
    "size_bytes",
    "peak_memory_bytes",
    "time_to_first_token_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "load_s",
    "cold_start_s",
    "energy_j_per_token",
)


class DecoderCosts:
    """What a decoder costs on a device. Threads may share it."""

    def __init__(
        self,
        decoder: Decoder,
        profile: DeviceProfile,
        *,
        other_bytes: int,
        threads: int,
        calibration: Calibration | None = None,
        text_ratio: float = 1.0,
        accuracy_level: int = 4,
    ) -> None:
        """Take what forecasts follow from.

        Args:
            decoder: the model.
            profile: of the device.
            other_bytes: of the bundle beside weights and graph: tokenizer, template and the like.
            threads: of a step.
            calibration: the device's small parts; None to estimate them from the profile.
            text_ratio: how many times longer a token takes to become text than with a plain
                tokenizer; see `onhand.host.costs.text`.
            accuracy_level: as it will be built; see `Variant`.
        """
        self.decoder = decoder
        self.profile = profile
        self.other_bytes = other_bytes
        self.threads = threads
        self.accuracy_level = accuracy_level
        known = calibration or estimate_calibration(profile)
        self._known, self._text_ratio = known, text_ratio
        # Memory's speed changes by the minute on shared machines; caches' does not.
        self.calibration = known.at_bandwidth(profile.read_bandwidth)
        # Empty where nobody knows how slow it gets: nothing is then slower.
        self._slow = known.at_bandwidth(profile.slow_read_bandwidth)
        self._text_s = (text_ratio - 1) * self.calibration.text_s
        self._shapes = decoder.matrices()
        self._read = read_matrices(decoder)

    def factorised(self, ranks: Mapping[str, int]) -> "DecoderCosts":
        """Return the costs of the same model with some matrices as products of two thinner ones.

        Args:
            ranks: matrix -> rank.
        """
        return DecoderCosts(
            replace(self.decoder, ranks={**self.decoder.ranks, **ranks}),
            self.profile,
            other_bytes=self.other_bytes,
            threads=self.threads,
            calibration=self._known,
            text_ratio=self._text_ratio,
            accuracy_level=self.accuracy_level,
        )

    @cached_property
    def _usual_bytes(self) -> float:
        """What a step reads in the usual format, for matrices that are judged alone."""
        usual = GroupFormat()
        return float(sum(packed_bytes(shape, usual) for shape in self._read.values()))

    def matrix(
        self, name: str, form: GroupFormat | None, *, working_bytes: float | None = None
    ) -> MatrixCost:
        """Return what a matrix costs in a format.

        Args:
            name: as in `Decoder.matrices`.
            form: how it is stored; None for float32.
            working_bytes: of all that a step reads, which says whether caches hold it; None for
                what it is with 4 bits in groups of 32 throughout.
        """
        shape = self._shapes[name]
        working = self._usual_bytes if working_bytes is None else working_bytes
        if name not in self._read:
            decode_s = prefill_s = 0.0
        else:
            decode_s = self._product(shape, form, 1, working).seconds
            is_head = name.removesuffix(".right").removesuffix(".left") == self.decoder.head
            prefill_s = (
                0.0
                if is_head  # it scores the last token alone
                else self._product(shape, form, ROWS_AT_ONCE, working).seconds / ROWS_AT_ONCE
            )
        n_tensors = 1 if form is None else 2 if form.symmetric else 3
        return MatrixCost(
            file_bytes=stored_bytes(shape, form) + n_tensors * _FULL_HEADER_BYTES,
            memory_bytes=packed_bytes(shape, form),
            decode_s=decode_s,
            prefill_s_per_token=prefill_s,
        )

    def working_bytes(self, formats: Formats, *, tokens: int) -> float:
        """Return what a step reads in the memory of a native engine: weights, keys and values.

        Args:
            formats: matrix name -> how it is stored, every one.
            tokens: of the conversation, prompt and answer.
        """
        memory = running_memory(self.decoder, tokens=tokens, threads=self.threads)
        read = (packed_bytes(shape, formats[name]) for name, shape in self._read.items())
        return float(memory.kv_bytes + sum(read))

    def whole(
        self,
        formats: Formats,
        *,
        prompt_tokens: int = _PROMPT_TOKENS,
        generated_tokens: int = _GENERATED_TOKENS,
    ) -> Forecast:
        """Return what the whole model costs.

        Args:
            formats: matrix name -> how it is stored, every one.
            prompt_tokens: tokens of a prompt; cut to the context, as `onhand bench` does.
            generated_tokens: tokens of an answer.
        """
        prompt, answer = self._lengths(prompt_tokens, generated_tokens)
        size = variant_bytes(
            self.decoder,
            formats,
            other_bytes=self.other_bytes,
            accuracy_level=self.accuracy_level,
        )
        native = engine_of(formats, accuracy_level=self.accuracy_level) == "native"
        step_s, step_limit = self._step(formats, prompt + (answer + 1) / 2, prompt + answer)
        first_s, first_limit = self._prompt(formats, prompt)
        slow_s, _ = self._step(
            formats, prompt + (answer + 1) / 2, prompt + answer, calibration=self._slow
        )
        slower = max(0.0, slow_s / step_s - 1) if self.profile.slow_read_bandwidth else 0.0
        if not native:
            step_s, first_s = _ONNX_STEP * step_s, _ONNX_PROMPT * first_s
        load_s = self._load_s(formats, size)
        return Forecast(
            size_bytes=float(size),
            peak_memory_bytes=float(
                peak_memory_bytes(
                    self.decoder,
                    formats,
                    self.calibration.memory,
                    tokens=prompt + answer,
                    threads=self.threads,
                    accuracy_level=self.accuracy_level,
                )
            ),
            time_to_first_token_s=first_s,
            prefill_tokens_per_s=prompt / first_s,
            decode_tokens_per_s=1 / step_s,
            load_s=load_s,
            cold_start_s=self.calibration.start.process_s + load_s + first_s,
            energy_j_per_token=estimate_j(self.profile, cpu_s=step_s * self.threads),
            limits={
                "time_to_first_token_s": first_limit,
                "prefill_tokens_per_s": first_limit,
                "decode_tokens_per_s": step_limit,
                "energy_j_per_token": step_limit,
                "load_s": "overhead",
                "cold_start_s": "overhead",
            },
            spread=self._spread(slower, native=native),
            estimated=self.calibration.estimated or not native,
        )

    def _lengths(self, prompt: int, answer: int) -> tuple[int, int]:
        context = self.decoder.context
        if prompt + answer > context:
            answer = min(answer, max(2, context // 4))
            prompt = max(1, min(prompt, context - answer))
        return prompt, answer

    def _product(
        self, shape: tuple[int, int], form: GroupFormat | None, rows: int, working_bytes: float
    ) -> ProductCost:
        return product_cost(
            self.calibration,
            shape,
            form,
            rows=rows,
            threads=self.threads,
            working_bytes=working_bytes,
        )

    def _step(
        self,
        formats: Formats,
        context: float,
        tokens: int,
        *,
        calibration: Calibration | None = None,
    ) -> tuple[float, Limit]:
        known = calibration or self.calibration
        working = self.working_bytes(formats, tokens=tokens)
        products = decode_products(
            known, self.decoder, formats, threads=self.threads, working_bytes=working
        ).values()
        work = step_work(self.decoder, context=context, threads=self.threads)
        far, near = (1 / known.bytes_per_s(size, self.threads) for size in (working, 0))
        # Keys and values that no cache holds are waited for as weights are.
        beside = work.kv_bytes * (far - near) + self._text_s
        beside += explained_s(known.step, work, threads=self.threads)
        total = sum(one.seconds for one in products)
        return beside + total, _limit(products, beside)

    def _prompt(self, formats: Formats, tokens: int) -> tuple[float, Limit]:
        products_s = prompt_products_s(
            self.calibration, self.decoder, formats, tokens=tokens, threads=self.threads
        )
        work = prompt_work(self.decoder, tokens=tokens, threads=self.threads)
        beside = self._text_s + explained_s(self.calibration.prompt, work, threads=self.threads)
        return products_s + beside, "operations" if products_s > beside else "overhead"

    def _load_s(self, formats: Formats, size: int) -> float:
        start = self.calibration.start
        weights = sum(stored_bytes(shape, formats[name]) for name, shape in self._shapes.items())
        packing = weights / (start.pack_bytes_per_s * self.threads)
        hashing = size / start.hash_bytes_per_s
        reading = self.decoder.vocab_size * start.token_s + len(self._shapes) * start.matrix_s
        # Files are checked beside the opening, where there is a core for it.
        beside = self.profile.usable_threads > 1
        rest = max(hashing, reading + packing) if beside else hashing + reading + packing
        return start.open_s + rest

    def _spread(self, slower: float, *, native: bool) -> dict[str, float]:
        """Return how far each figure may lie off; `slower` is what slow memory adds to a step."""
        known = self.calibration.spread if native else max(self.calibration.spread, _ONNX_SPREAD)
        found = dict.fromkeys(FIGURES, min(1.0, known + _UNSEEN))
        # Shapes say these; another engine keeps copies that shapes alone do not tell.
        memory = _MEMORY_SPREAD if native else _ONNX_SPREAD
        for name in ("decode_tokens_per_s", "energy_j_per_token"):
            found[name] = min(1.0, found[name] + slower)
        return found | {"size_bytes": _SIZE_SPREAD, "peak_memory_bytes": memory}


def _limit(products: object, beside: float) -> Limit:
    costs = [one for one in products if isinstance(one, ProductCost)]  # type: ignore[attr-defined]
    waiting = sum(one.seconds for one in costs if one.read_s >= one.compute_s)
    computing = sum(one.seconds for one in costs) - waiting
    most = max(waiting, computing, beside)
    if most == beside:
        return "overhead"
    return "memory bandwidth" if most == waiting else "operations"
