"""What each matrix may be stored as, said in words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineUnavailable, InputError
from onhand.core.manifest import LANGUAGE_MODEL, Manifest, Variant
from onhand.core.profile import DeviceProfile
from onhand.core.quantized import GroupFormat
from onhand.device.opening import able_engines
from onhand.host.passes.quantize import LAYER_METHODS
from onhand.host.scale_tables import SCALE_BITS

__all__ = [
    "Form",
    "SearchSpace",
    "able_forms",
    "form_name",
    "named_form",
    "tie_names",
    "usual_forms",
    "usual_space",
]

Form = GroupFormat | None
"""How a matrix is stored; None for float32."""

_NAME = re.compile(r"int(\d) g(\d+)( asymmetric)?")
_WHOLE = "float32"
_METHODS = ("clip", "rtn")
_ZEROS = (0.25, 0.5)
_RANKS = (0.0003, 0.003, 0.03)
_EXACT = 1e-9


def form_name(form: Form) -> str:
    """Say a format in words: "int4 g32", "int2 g64 asymmetric", "float32".

    Args:
        form: the format.
    """
    if form is None:
        return _WHOLE
    zeros = "" if form.symmetric else " asymmetric"
    return f"int{form.bits} g{form.group_size}{zeros}"


def named_form(text: str) -> Form:
    """Undo `form_name`.

    Args:
        text: what it gave.

    Returns:
        The format.

    Raises:
        InputError: if it is no such text.
    """
    if text == _WHOLE:
        return None
    if (found := _NAME.fullmatch(text)) is None:
        raise InputError(f"format {text!r}: expected one like 'int4 g32'")
    return GroupFormat(bits=int(found[1]), group_size=int(found[2]), symmetric=not found[3])


def usual_forms() -> tuple[Form, ...]:
    """Return the formats that a search tries where nothing else is said.

    Few bits with and without zero points in all group sizes; at 8 bits these change next to
    nothing, so there are two; and float32, which few engines run quickly and some not at all.
    """
    few = [
        GroupFormat(bits=bits, group_size=group, symmetric=symmetric)
        for bits in (2, 3, 4)
        for group in GroupFormat.GROUP_SIZES
        for symmetric in (True, False)
    ]
    return (*few, GroupFormat(bits=8, group_size=128), GroupFormat(bits=8, group_size=32), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What a search may choose from.

    Attributes:
        forms: formats of a matrix; without any, all the usual ones, and `usual_space` in all else.
        method: how weights are rounded, see `Quantize`; not one that scales inputs, because then
            what one matrix loses would depend on the formats of the others.
        ties: patterns of names; all matrices that fit one pattern share a format. A matrix that
            fits none is a group of its own, one that fits several belongs to the first.
        methods: further ones that a single matrix may be rounded by.
        zeros: shares of each row that may become zero before, in whole hundredths; codes are
            then stored without their zeros.
        ranks: shares of its outputs' energy that a matrix may lose, of 1, as a product of two
            thinner ones; each stands for the lowest rank that loses no more.
        scale_bits: of the scales in the bundle, see `Quantize`; 0 for 8 where no formats are named,
            else 16.
    """

    forms: tuple[Form, ...] = ()
    method: str = "gptq"
    ties: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    zeros: tuple[float, ...] = ()
    ranks: tuple[float, ...] = ()
    scale_bits: int = 0

    def __post_init__(self) -> None:
        for method in (self.method, *self.methods):
            if method not in LAYER_METHODS:
                able = ", ".join(LAYER_METHODS)
                raise InputError(f"search: method is {method!r}, must be one of {able}")
        for share in self.zeros:
            if not 0 < share < 1 or abs(share * 100 - round(share * 100)) > _EXACT:
                raise InputError(f"search: zeros of {share}, must be hundredths between 0 and 1")
        for share in self.ranks:
            if not 0 <= share < 1:
                raise InputError(f"search: ranks that lose {share}, must be from 0 to below 1")
        if self.scale_bits not in {0, *SCALE_BITS}:
            raise InputError(
                f"search: scale_bits is {self.scale_bits}, must be one of {SCALE_BITS}"
            )
        if len(set(self.forms)) != len(self.forms):
            raise InputError("search: a format is given twice")


def usual_space(space: SearchSpace) -> SearchSpace:
    """Return what is tried where no formats are named; any other space as it is.

    Args:
        space: what was asked for.
    """
    if space.forms:
        return replace(space, scale_bits=space.scale_bits or max(SCALE_BITS))
    return replace(
        space,
        forms=usual_forms(),
        methods=space.methods or _METHODS,
        zeros=space.zeros or _ZEROS,
        ranks=space.ranks or _RANKS,
        scale_bits=space.scale_bits or min(SCALE_BITS),
    )


def tie_names(names: Sequence[str], patterns: Sequence[str]) -> list[list[str]]:
    """Return the matrices that share a format, for each pattern that fits any.

    Args:
        names: of all matrices.
        patterns: see `SearchSpace.ties`.
    """
    left = list(names)
    ties: list[list[str]] = []
    for pattern in patterns:
        if fitting := [name for name in left if fnmatchcase(name, pattern)]:
            ties.append(fitting)
            left = [name for name in left if name not in fitting]
    return ties


def able_forms(
    decoder: Decoder, forms: Sequence[Form], profile: DeviceProfile, *, accuracy_level: int
) -> tuple[str, dict[str, tuple[Form, ...]], dict[str, str]]:
    """Return the formats that the engine which would run the model can run, matrix by matrix.

    That engine is the one preferred for int4: a format that it cannot run would drag the whole
    model into a slower one.

    Args:
        decoder: the model.
        forms: formats to ask for.
        profile: what the device has.
        accuracy_level: of the bundle's graphs.

    Returns:
        The engine's name; matrix -> formats; and format that no matrix may have -> the reason.
    """
    names = list(decoder.matrices())
    usual: dict[str, Form] = dict.fromkeys(names, GroupFormat())
    trial = _unwritten(decoder, usual, accuracy_level)
    able, _ = able_engines(trial, profile, variant="trial", wanted=None)
    engine = next(iter(able))
    found: dict[str, list[Form]] = {name: [] for name in names}
    reasons: dict[str, str] = {}
    shapes = decoder.matrices()
    for form in forms:
        # Layers are alike: one of each kind and shape is asked about.
        refused: dict[tuple[str, tuple[int, int]], bool] = {}
        for name in names:
            kind = re.sub(r"\.\d+\.", ".*.", name), shapes[name]
            if kind not in refused:
                changed = _unwritten(decoder, usual | {name: form}, accuracy_level)
                try:
                    able_engines(changed, profile, variant="trial", wanted=engine)
                except EngineUnavailable as error:
                    reasons.setdefault(form_name(form), str(error))
                    refused[kind] = True
                else:
                    refused[kind] = False
            if not refused[kind]:
                found[name].append(form)
    usable = {form_name(form) for own in found.values() for form in own}
    return (
        engine,
        {name: tuple(own) for name, own in found.items()},
        {form: why for form, why in reasons.items() if form not in usable},
    )


def _unwritten(decoder: Decoder, forms: Mapping[str, Form], accuracy_level: int) -> Bundle:
    """Return the description of a bundle that is not on disk, to ask an engine about."""
    variant = Variant(
        graph="model.onnx",
        weights=("weights.safetensors",),
        matrices=forms,
        accuracy_level=accuracy_level,
    )
    manifest = Manifest(
        name="trial",
        kind=LANGUAGE_MODEL,
        version=1,
        default_variant="trial",
        variants={"trial": variant},
        model=decoder,
        files={},
        provenance={},
    )
    return Bundle(root=Path("trial"), manifest=manifest, manifest_sha256="")
