"""The rotary positions that a `config.json` describes, in the spelling of every version."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from onhand.core.decoder import MOST, Rope
from onhand.core.errors import SourceError
from onhand.core.rope import LEAST_CONTEXT, SCALINGS
from onhand.host.sources.keys import Keys

__all__ = ["FULL", "SLIDING", "RotaryRules", "read_ropes"]

SLIDING, FULL = "sliding_attention", "full_attention"
_ORIGINAL, _SHARE = "original_max_position_embeddings", "partial_rotary_factor"


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryRules:
    """What a family's rotary positions may be.

    Attributes:
        scalings: its names of kinds of scaling -> ours.
        theta: the base, where the configuration leaves it out.
        local_theta: the same of layers with a window; None if those turn like all others.
        may_share: whether a part of a head may be left unturned.
    """

    scalings: Mapping[str, str] = field(default_factory=lambda: {name: name for name in SCALINGS})
    theta: float = 10000.0
    local_theta: float | None = None
    may_share: bool = False


def read_ropes(keys: Keys, rules: RotaryRules, head_dim: int) -> tuple[Rope, Rope | None]:
    """Read the rotary positions.

    Args:
        keys: the configuration.
        rules: the family's.
        head_dim: numbers of a head.

    Returns:
        Those of every layer; and those of layers with a window, None where they are the same.

    Raises:
        SourceError: if they are not known, or two places contradict each other.
        InputError: if a number or a name is wrong.
    """
    found = _options(keys)
    full, sliding = found.value(FULL), found.value(SLIDING)
    is_nested = full is not None or sliding is not None
    if rules.local_theta is None:
        if is_nested:
            raise SourceError(f"{found.where}: is given by kinds of layers, this family has one")
        return _rope(found, keys, rules, head_dim), None
    if keys.value("rope_parameters") and not is_nested:
        raise keys.wrong("rope_parameters", f"must be an object with {FULL} and {SLIDING}")
    nothing = Keys({}, found.where)
    rope = _rope(found.inner(FULL) or nothing if is_nested else found, keys, rules, head_dim)
    local = _rope(found.inner(SLIDING) or nothing, keys, rules, head_dim, is_local=True)
    return rope, None if local == rope else local


def _options(keys: Keys) -> Keys:
    """Return the object of rotary options, which has two names, or an empty one.

    Raises:
        SourceError: if it is no object, or the two differ.
    """
    # transformers 5 writes `rope_parameters`; before, it was `rope_scaling`.
    new, old = keys.value("rope_parameters"), keys.value("rope_scaling")
    if new and old and new != old:
        raise keys.wrong("rope_scaling", "but rope_parameters says otherwise; keep the one meant")
    for key, value in (("rope_parameters", new), ("rope_scaling", old)):
        if not value:
            keys.inner(key)  # empty, or no object at all
    return keys.inner("rope_parameters" if new else "rope_scaling") or Keys({}, keys.where)


def _rope(
    inner: Keys, outer: Keys, rules: RotaryRules, head_dim: int, *, is_local: bool = False
) -> Rope:
    """Read one object of rotary options; some of them may stand outside it."""
    scaling = _scaling(inner, rules)
    if is_local:
        theta = _theta(inner, outer, "rope_local_base_freq", rules.local_theta or rules.theta)
    else:
        theta = _theta(inner, outer, "rope_theta", rules.theta)
    share = _share(inner, outer, rules, head_dim)
    if scaling == "default":
        return Rope(theta=theta, share=share)
    if scaling == "linear":
        return Rope(theta=theta, share=share, scaling=scaling, factor=inner.number("factor"))
    context = outer.whole("max_position_embeddings", most=MOST["context"])
    original = _agreed(inner, outer, _ORIGINAL, _ORIGINAL).whole(
        _ORIGINAL, least=LEAST_CONTEXT[scaling], most=MOST["context"], default=context
    )
    if scaling == "llama3":
        low, high = inner.number("low_freq_factor"), inner.number("high_freq_factor")
        if low >= high:
            raise inner.wrong("low_freq_factor", f"must be below high_freq_factor, {high:g}")
        return Rope(
            theta=theta,
            share=share,
            scaling=scaling,
            factor=inner.number("factor"),
            original_context=original,
            low_freq_factor=low,
            high_freq_factor=high,
        )
    factor = inner.number("factor", default=context / original)
    has_attention_factor = inner.value("attention_factor") is not None
    rope = Rope(
        theta=theta,
        share=share,
        scaling=scaling,
        factor=factor,
        original_context=original,
        attention_factor=inner.number("attention_factor") if has_attention_factor else None,
    )
    return _yarn(inner, rope) if scaling == "yarn" else _longrope(inner, rope, head_dim)


def _scaling(inner: Keys, rules: RotaryRules) -> str:
    # Older versions call the kind "type"; some files have both.
    kinds = {
        rules.scalings[inner.word(key, rules.scalings)]
        for key in ("rope_type", "type")
        if inner.value(key) is not None
    }
    if len(kinds) > 1:
        raise inner.wrong("type", "but rope_type says otherwise; keep the one meant")
    return kinds.pop() if kinds else "default"


def _agreed(inner: Keys, outer: Keys, key: str, outer_key: str) -> Keys:
    """Return the object that has an option: the inner one, or the outer under its own key.

    Raises:
        SourceError: if both have it and say different things.
    """
    given, beside = inner.value(key), outer.value(outer_key)
    if given is not None and beside is not None and given != beside:
        raise inner.wrong(key, f"but {outer_key} beside it says otherwise; keep the one meant")
    return outer if given is None else inner


def _theta(inner: Keys, outer: Keys, outer_key: str, default: float) -> float:
    place = _agreed(inner, outer, "rope_theta", outer_key)
    key = outer_key if place is outer else "rope_theta"
    theta = place.number(key, default=default)
    if theta <= 1:
        raise place.wrong(key, "must be above 1")
    return theta


def _share(inner: Keys, outer: Keys, rules: RotaryRules, head_dim: int) -> float:
    place = _agreed(inner, outer, _SHARE, _SHARE)
    share = place.number(_SHARE, default=1.0)
    rotated = int(head_dim * share)
    if share != 1 and not rules.may_share:
        raise place.wrong(_SHARE, "this family knows only 1.0")
    if share > 1 or rotated < 2 or rotated % 2:
        raise place.wrong(
            _SHARE, f"must be at most 1, and turn an even number of a head's {head_dim} numbers"
        )
    return share


def _yarn(inner: Keys, rope: Rope) -> Rope:
    for key, accepted in (("mscale", 0), ("mscale_all_dim", 0), ("truncate", True)):
        if inner.value(key) not in (None, accepted):
            raise inner.wrong(key, "this option is not known")
    fast, slow = inner.number("beta_fast", default=32.0), inner.number("beta_slow", default=1.0)
    if slow >= fast:
        raise inner.wrong("beta_slow", f"must be below beta_fast, {fast:g}")
    return replace(rope, beta_fast=fast, beta_slow=slow)


def _longrope(inner: Keys, rope: Rope, head_dim: int) -> Rope:
    wanted = rope.rotated(head_dim) // 2
    for key in ("short_factor", "long_factor"):
        if len(inner.numbers(key)) != wanted:
            raise inner.wrong(key, f"must be a list of {wanted} numbers, one for each pair")
    return replace(
        rope,
        short_factors=inner.numbers("short_factor"),
        long_factors=inner.numbers("long_factor"),
    )
