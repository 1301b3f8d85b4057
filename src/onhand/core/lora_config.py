"""What an adapter's `adapter_config.json` asks for: every option is followed or refused.

Source:
    Names, defaults and matching rules follow PEFT's `LoraConfig`
    (https://github.com/huggingface/peft, src/peft/tuners/lora/config.py) and `get_pattern_key`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onhand.core.errors import InputError
from onhand.core.outside import count, flag, parse_json, positive

__all__ = ["MAX_CONFIG_BYTES", "LoraConfig", "parse_lora_config"]

MAX_CONFIG_BYTES = 2**20
_MAX_RANK = 4096
_MAX_PATTERNS = 4096
_MAX_PATTERN = 200
# A pattern is a regular expression from outside: no choices and no repetition but of digits, so
# that its author cannot make matching it take long.
_PATTERN = re.compile(r"\^?(?:[\w.-]|\\\.|\\d\+?)+\$?", re.ASCII)
_READ = frozenset({
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "init_lora_weights",
    "bias",
})
# Of training alone, or of what is already plain from the adapter's tensors.
_WITHOUT_EFFECT = frozenset({
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
})
# The others change the base model's weights before they train.
_STARTS = (True, False, "gaussian", "eva", "orthogonal")
_REMEDY = "merge the adapter into its model with PEFT, and build that"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """The options that decide what an adapter adds.

    Attributes:
        rank: of every module that `ranks` does not name.
        alpha: likewise; the product B A is scaled by alpha / rank.
        rooted: whether it is scaled by alpha / sqrt(rank) instead (arXiv:2312.03732).
        ranks: patterns of modules' names and their rank; the first that matches counts.
        alphas: the same for alpha.
        targets: ends of the adapted modules' names; None if only the tensors say.
        excluded: ends of the names of modules left out.
        layers: the adapted layers; None for all.
        wholes: names of modules that are trained whole, and stand in the place of the model's.
    """

    rank: int
    alpha: float
    rooted: bool
    ranks: Sequence[tuple[re.Pattern[str], int]]
    alphas: Sequence[tuple[re.Pattern[str], float]]
    targets: Sequence[str] | None
    excluded: Sequence[str]
    layers: frozenset[int] | None
    wholes: Sequence[str] = ()

    def rank_of(self, module: str) -> int:
        """Return a module's rank."""
        found = (rank for pattern, rank in self.ranks if pattern.match(module))
        return next(found, self.rank)

    def scale_of(self, module: str) -> float:
        """Return the factor on a module's product B A."""
        found = (alpha for pattern, alpha in self.alphas if pattern.match(module))
        alpha, rank = next(found, self.alpha), self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rooted else rank)

    def asks_for(self, module: str, layer: int | None) -> bool | None:
        """Say whether a module is to be adapted; None if only the tensors say.

        Args:
            module: its name in the model.
            layer: the number of its layer; None outside the layers.
        """
        if self.targets is None:
            return None
        if self.layers is not None and layer not in self.layers:
            return False
        return _ends(module, self.targets) and not _ends(module, self.excluded)


def _ends(module: str, names: Sequence[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def parse_lora_config(content: bytes, *, where: str, may_replace: bool = False) -> LoraConfig:
    """Read and validate an adapter's configuration, which may come from outside.

    Args:
        content: the file's bytes.
        where: the file's name for messages.
        may_replace: whether modules may be trained whole (`modules_to_save`).

    Returns:
        The options.

    Raises:
        InputError: if it is not valid, or asks for what cannot be done.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise InputError(f"{where}: over {MAX_CONFIG_BYTES} bytes, which no adapter needs")
    try:
        table = parse_json(content)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"{where}: must be a JSON object, found {type(table).__name__}")
    saved = table.pop("modules_to_save", None) if may_replace else None
    _refuse_unsupported(table, where)
    flag(table, "fan_in_fan_out", where)  # how the base is stored: known from its own naming
    ranks, alphas = (_patterns(table, f"{what}_pattern", where) for what in ("rank", "alpha"))
    layers = table.get("layers_to_transform")
    targets = table.get("target_modules")
    excluded = table.get("exclude_modules")
    # A text is an expression that any module may match: then only the tensors say.
    is_open = targets is None or isinstance(targets, str) or isinstance(excluded, str)
    return LoraConfig(
        rank=count({"r": 8, **table}, "r", where, most=_MAX_RANK),
        alpha=positive(table.get("lora_alpha", 8), f"{where}: lora_alpha"),
        rooted=flag(table, "use_rslora", where),
        ranks=[
            (_compiled(key), count(ranks, key, f"{where}: rank_pattern", most=_MAX_RANK))
            for key in ranks
        ],
        alphas=[
            (_compiled(key), positive(value, f"{where}: alpha_pattern: {key}"))
            for key, value in alphas.items()
        ],
        targets=None if is_open else _names(targets, f"{where}: target_modules"),
        excluded=() if is_open or not excluded else _names(excluded, f"{where}: exclude_modules"),
        layers=None if layers is None else _layers(layers, f"{where}: layers_to_transform"),
        wholes=_names(saved, f"{where}: modules_to_save") if saved else (),
    )


def _refuse_unsupported(table: Mapping[str, object], where: str) -> None:
    """Refuse what would change the answers in a way that is not known here.

    Raises:
        InputError: if there is such an option.
    """
    if table.get("peft_type") != "LORA":
        raise InputError(f"{where}: peft_type is {_shown(table.get('peft_type'))}, must be 'LORA'")
    if table.get("bias", "none") != "none":
        raise InputError(f"{where}: bias is {_shown(table['bias'])}, must be 'none'; {_REMEDY}")
    start = table.get("init_lora_weights", True)
    if not isinstance(start, bool | str) or start not in _STARTS:
        raise InputError(
            f"{where}: init_lora_weights is {_shown(start)}, which changes the model beside the "
            f"adapter; {_REMEDY}"
        )
    for key in sorted(table.keys() - _READ - _WITHOUT_EFFECT):
        # An option that is off, whatever it is, changes nothing.
        if table[key]:
            raise InputError(
                f"{where}: {key} is {_shown(table[key])}, which is not supported; {_REMEDY}"
            )


def _patterns(table: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
    value = table.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_PATTERNS:
        raise InputError(f"{where}: {key} must be an object of at most {_MAX_PATTERNS} patterns")
    for pattern in value:
        if len(pattern) > _MAX_PATTERN or not _PATTERN.fullmatch(pattern):
            raise InputError(
                f"{where}: {key} has the pattern {_shown(pattern)}; known are names with dots and "
                f"\\d+; {_REMEDY}"
            )
    return value


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({pattern})$")


def _names(value: object, where: str) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{where} is {_shown(value)}, must be a text or a list of names")
    return tuple(names)


def _layers(value: object, where: str) -> frozenset[int]:
    layers = value if isinstance(value, list) else [value]
    if not all(type(layer) is int and layer >= 0 for layer in layers):
        raise InputError(f"{where} is {_shown(value)}, must be a layer's number or a list of them")
    return frozenset(layers)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
