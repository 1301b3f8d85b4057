"""A source that is quantised already, stored exactly as it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.passes.base import Matrix, MatrixLoss, Pass, PassReport
from onhand.host.passes.quantize import LayerTable, Quantize

__all__ = ["AsIs", "choose_transforms"]

# Next to nothing is lost, and the matrices that GPTQ and AWQ leave alone are few.
_PLAIN_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AsIs:
    """Keep the codes, scales and zero points of one source, and round the rest. See `Pass`.

    Attributes:
        how: how the source was quantised, such as "gptq".
        formats: its coded matrices, and the formats that hold them without loss.
        bits: bits of the matrices that are not coded, such as the embedding; 0 keeps them in
            float32.
        method: of rounding those, see `Quantize`.
        layers: formats of single ones of them, likewise.
        scale_bits: of their scales, likewise.
    """

    name: ClassVar[str] = "as-is"

    how: str
    formats: Mapping[str, GroupFormat]
    bits: int = _PLAIN_BITS
    method: str = "clip"
    layers: LayerTable = field(default_factory=dict, hash=False)
    scale_bits: int = 16

    def plan(self, decoder: Decoder) -> PassReport:
        """Say what `apply` would change, from shapes alone."""
        plain = self._plain().plan(decoder)
        names = decoder.matrices()
        others = dict.fromkeys(names) if self.bits == 0 else plain.formats
        kept = {
            name: f"codes, scales and zero points as they came ({self.how})"
            for name in names
            if name in self.formats
        }
        if self.bits == 0:
            in_full = "not quantised in the source: float32"
            kept |= {name: in_full for name in names if name not in self.formats}
        return PassReport(
            formats={name: self.formats.get(name, others[name]) for name in names},
            kept={**kept, **plain.kept},
            rounding=f"{self.name} {plain.rounding}",
            needs_calibration=plain.needs_calibration and len(kept) < len(names),
            scale_bits=self.scale_bits,
        )

    def apply(
        self,
        model: Model,
        statistics: InputStatistics,
        *,
        names: Sequence[str],
        threads: int,
        advance: Callable[[float], None],
    ) -> Iterator[Matrix]:
        """Yield the named matrices in the order given, a coded one exactly as it is.

        A model without codes, as a forecast takes one to time the pass, is quantised as a whole.

        Yields:
            The matrices, one by one.
        """
        for name in names:
            if model.coded is None or name not in self.formats:
                plain = self._plain()
                yield from plain.apply(
                    model, statistics, names=[name], threads=threads, advance=advance
                )
                continue
            tensor = model.coded.tensor(name)
            advance(float(np.prod(tensor.shape)))
            yield Matrix(
                tensor=tensor,
                loss=MatrixLoss(
                    name=name,
                    bits=tensor.format.bits,
                    group_size=tensor.format.group_size,
                    size_bytes=tensor.size_bytes,
                    relative_error=0.0,
                    output_error=0.0,
                ),
            )

    def _plain(self) -> Quantize:
        return Quantize(
            bits=self.bits or _PLAIN_BITS,
            method=self.method,
            layers=self.layers,
            scale_bits=self.scale_bits,
        )


def choose_transforms(
    model: Model, asked: Mapping[str, Pass], *, keep_codes: bool
) -> tuple[Mapping[str, Pass], tuple[str, ...]]:
    """Keep the codes of a source that is quantised already, or say what rounding again means.

    Args:
        model: the source.
        asked: variant name -> its pass.
        keep_codes: whether codes that are there go before `asked`; then the first one's
            `embed_bits` and method still hold for what is not coded.

    Returns:
        The passes to run, and notes for the user.

    Raises:
        SourceError: if the codes are to be kept and cannot be.
    """
    if model.coded is None or all(isinstance(one, AsIs) for one in asked.values()):
        return asked, ()
    how = model.coded.how
    if not keep_codes:
        return asked, (
            f"the source is quantised already ({how}): rounding its weights again is a second "
            "loss, and quality is compared with the source, not with the model it was made from",
        )
    made = AsIs(how=how, formats=model.coded.formats())
    first = next(iter(asked.values()))
    if isinstance(first, Quantize):
        made = replace(made, bits=first.embed_bits or made.bits, method=first.method)
    return {made.name: made}, (
        f"the source is quantised already ({how}): its codes, scales and zero points are kept as "
        f"they are, other matrices get {made.bits} bits; quality is compared with the source, not "
        "with the model it was made from",
    )
