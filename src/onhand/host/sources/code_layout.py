"""What a checkpoint's `quantization_config` says of its codes: GPTQ and AWQ.

Source:
    Keys and defaults follow transformers' `GPTQConfig` and `AwqConfig`; `dynamic`, `pack_dtype`,
    `meta` and the formats are GPTQModel's (gptqmodel/quantization/config.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from onhand.core.errors import SourceError
from onhand.core.quantized import GroupFormat

__all__ = ["CodeLayout", "parse_layout"]

GPTQ, AWQ = "gptq", "awq"
# The first is the default.
_FORMATS = {GPTQ: ("gptq", "gptq_v2"), AWQ: ("gemm",)}
_BITS = {GPTQ: GroupFormat.BITS, AWQ: (4,)}
# A key that would change what the codes stand for, in a way that is not read here.
_REFUSED: Mapping[str, tuple[object, ...]] = {
    "adapter": (None, {}),
    "is_marlin_format": (False, None),
    "pack_dtype": ("int32", None),
    "rotation": (None,),
    "zero_point": (True, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLayout:
    """How a checkpoint's codes are laid out.

    Attributes:
        method: "gptq" or "awq".
        bits: width of one code; 2, 3, 4 or 8.
        group_size: inputs that share one scale; -1 if all of a row do.
        lowered: whether zero points are stored less one.
        by_gptqmodel: whether GPTQModel wrote it, which lowers zero points by whole words.
        varies: whether some matrices have other bits and groups than these.
    """

    method: str
    bits: int
    group_size: int = 128
    lowered: bool = False
    by_gptqmodel: bool = False
    varies: bool = False


def parse_layout(config: object, where: str) -> CodeLayout | None:
    """Read the `quantization_config` of a `config.json`.

    Which matrices are coded is told by the tensors in the files: `modules_to_not_convert` and
    `lm_head` only repeat it, and so do the bits and groups in `dynamic`, by the tensors' shapes.

    Args:
        config: the parsed JSON value; None if there is none.
        where: the file, for messages.

    Returns:
        The layout; None for a model that is not quantised.

    Raises:
        SourceError: if the method, its format or an option is not known.
    """
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise SourceError(f"{where}: quantization_config is {config!r}, must be a JSON object")
    method = config.get("quant_method", config.get("method"))
    if not isinstance(method, str) or method not in _FORMATS:
        raise SourceError(
            f"{where}: quantization_config is of method {method!r}; known: {', '.join(_FORMATS)}"
        )
    form = _format(config, method, where)
    for key, accepted in _REFUSED.items():
        if key in config and config[key] not in accepted:
            raise SourceError(
                f"{where}: {key} of quantization_config is {config[key]!r}, only {accepted[0]!r} "
                "is known"
            )
    bits = _whole(config, "bits", 4 if method == AWQ else None, where)
    if bits not in _BITS[method]:
        known = ", ".join(map(str, _BITS[method]))
        raise SourceError(
            f"{where}: bits of quantization_config is {bits}, known for {method}: {known}"
        )
    group_size = _whole(config, "group_size", 128, where)
    if group_size != -1 and group_size < 1:
        raise SourceError(
            f"{where}: group_size of quantization_config is {group_size}, must be -1 or above 0"
        )
    return CodeLayout(
        method=method,
        bits=bits,
        group_size=group_size,
        lowered=form == "gptq",
        by_gptqmodel=_is_by_gptqmodel(config.get("meta")),
        varies=bool(config.get("dynamic")),
    )


def _format(config: Mapping[str, object], method: str, where: str) -> str:
    keys = ("checkpoint_format", "format") if method == GPTQ else ("version", "format")
    form = next((config[key] for key in keys if config.get(key) is not None), _FORMATS[method][0])
    if method == AWQ and config.get("backend") == "llm-awq":
        form = "llm-awq"  # its own layout, whatever the version says
    found = form.lower() if isinstance(form, str) else form
    if not isinstance(found, str) or found not in _FORMATS[method]:
        known = ", ".join(_FORMATS[method])
        raise SourceError(
            f"{where}: quantization_config has the {method} format {form!r}, known: {known}; "
            "save the model again in one of these"
        )
    return found


def _whole(config: Mapping[str, object], key: str, default: int | None, where: str) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise SourceError(
            f"{where}: {key} of quantization_config is {value!r}, must be a whole number"
        )
    return value


def _is_by_gptqmodel(meta: object) -> bool:
    quantizer = meta.get("quantizer") if isinstance(meta, Mapping) else None
    named = quantizer if isinstance(quantizer, list) else [quantizer]
    return any(isinstance(name, str) and name.startswith("gptqmodel") for name in named)
