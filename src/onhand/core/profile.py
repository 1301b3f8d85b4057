"""What a device has, as data: read and written as TOML."""

import difflib
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, TypedDict, TypeVar

from onhand.core.errors import InputError, RecipeError
from onhand.core.profile_comments import COMMENTS
from onhand.core.profile_parts import (
    POWER_SOURCES,
    CacheLevel,
    EnergyCounter,
    MatrixRate,
    Provider,
)
from onhand.core.tables import filled

__all__ = ["DeviceProfile", "parse_profile", "read_profile", "render_profile"]

FORMAT: Final = 3
# The first had none of the lists, and nothing of storage, power or temperature; the second no
# energy counters, no slow bandwidth, and no providers that are absent.
_READABLE: Final = (1, 2, FORMAT)
_LISTS: Final = {
    "caches": CacheLevel,
    "matrix_rates": MatrixRate,
    "providers": Provider,
    "energy_counters": EnergyCounter,
}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What one device has.

    Attributes:
        name: short name, as in file names.
        system: operating system, such as "linux".
        machine: processor architecture, such as "x86_64" or "aarch64".
        processor: the processor's own name.
        physical_cores: cores, without hyper-threads.
        usable_threads: threads that one step should use: physical cores, cut by the process's
            affinity and by the control group's quota.
        instruction_sets: such as "avx2", "avx512_vnni", "neon", "i8mm".
        memory_bytes: memory that a process may use, the control group's limit included.
        read_bandwidth: bytes per second read from memory, for 1, 2, ... `usable_threads` threads.
        slow_read_bandwidth: what nine of ten passes reached, likewise, since a machine that others
            share is at times slow; empty where it was not measured.
        others_busy: share of the processors that other programs kept busy as it was probed; None
            where it is not known.
        watts: power that a busy processor draws beyond idle, for energy estimates.
        watts_source: where `watts` comes from.
        energy_counter: path of a readable energy counter, or "" where there is none.
        estimated: True if the figures come from public sources, not from a probe.
        affinity_cpus: logical processors that the process may run on; 0 where it is not known.
        quota_cpus: processors' worth of time that a control group grants; 0 for no limit.
        free_bytes: memory that was free when it was probed; 0 where it is not known.
        storage_read: bytes per second read from storage, not from memory; 0 for not measured.
        storage_write: bytes per second written, until they were on the storage; 0 likewise.
        power_source: one of `POWER_SOURCES`, when it was probed.
        temperature_c: of the hottest sensor of the processor; None where none can be read.
        caches: for data, the nearest first.
        matrix_rates: as measured, by kind and shape.
        providers: what else may compute.
        energy_counters: what tells energy or power, readable or not.
        sources: where estimated figures come from.
    """

    name: str
    system: str
    machine: str
    processor: str
    physical_cores: int
    usable_threads: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    read_bandwidth: tuple[float, ...]
    watts: float
    watts_source: str
    energy_counter: str = ""
    estimated: bool = False
    affinity_cpus: int = 0
    quota_cpus: float = 0.0
    free_bytes: int = 0
    storage_read: float = 0.0
    storage_write: float = 0.0
    power_source: str = "unknown"
    temperature_c: float | None = None
    slow_read_bandwidth: tuple[float, ...] = ()
    others_busy: float | None = None
    caches: tuple[CacheLevel, ...] = ()
    matrix_rates: tuple[MatrixRate, ...] = ()
    providers: tuple[Provider, ...] = ()
    energy_counters: tuple[EnergyCounter, ...] = ()
    sources: tuple[str, ...] = ()


def render_profile(profile: DeviceProfile) -> str:
    """Write a profile as TOML with its units as comments; `parse_profile` reads it."""
    lines = [f"format = {FORMAT}"]
    plain = [field.name for field in fields(profile) if field.name not in _LISTS]
    lines += [line for name in plain for line in _shown(name, getattr(profile, name))]
    for name in _LISTS:
        for number, one in enumerate(getattr(profile, name)):
            lines += ["", *([f"# {COMMENTS[name]}"] if number == 0 else []), f"[[{name}]]"]
            lines += [_line(f.name, getattr(one, f.name)) for f in fields(one)]
    return "\n".join(lines) + "\n"


def _shown(name: str, value: object) -> list[str]:
    if value is None:  # TOML has no word for it
        return []
    comment = COMMENTS.get(name)
    return [*([] if comment is None else [f"# {comment}"]), _line(name, value)]


def _line(name: str, value: object) -> str:
    # Long lists of texts, such as sources, one on each line.
    if name == "sources" and isinstance(value, tuple) and value:
        inner = "".join(f"    {_text_of(one)},\n" for one in value)
        return f"{name} = [\n{inner}]"
    return f"{name} = {_text_of(list(value) if isinstance(value, tuple) else value)}"


def _text_of(value: object) -> str:
    # JSON's strings, numbers, booleans and flat lists are TOML's as well, but for a bare
    # DEL, and for pairs of surrogates instead of one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_profile(text: str) -> DeviceProfile:
    """Read a profile from TOML.

    Args:
        text: as written by `render_profile`.

    Returns:
        The profile.

    Raises:
        InputError: if the TOML, a key or a value is wrong, or the format is a later one.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"device profile is not TOML: {error}") from error
    if (found := table.pop("format", None)) not in _READABLE or isinstance(found, bool):
        raise InputError(f"device profile: format {found!r}, this reader knows up to {FORMAT}")
    known = {field.name: field for field in fields(DeviceProfile)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"device profile: unknown key {key!r}{hint}")
    texts = {key: _text(table, key) for key in ("name", "system", "machine", "processor")}
    return DeviceProfile(
        **texts,
        physical_cores=_whole(table, "physical_cores"),
        usable_threads=_whole(table, "usable_threads"),
        instruction_sets=tuple(
            _text({"instruction_sets": item}, "instruction_sets")
            for item in _list(table, "instruction_sets")
        ),
        memory_bytes=_whole(table, "memory_bytes"),
        read_bandwidth=_rates(table, "read_bandwidth"),
        slow_read_bandwidth=_rates({"slow_read_bandwidth": [], **table}, "slow_read_bandwidth"),
        watts=_positive(table.get("watts"), "watts"),
        watts_source=_text(table, "watts_source"),
        energy_counter=_text({"energy_counter": "", **table}, "energy_counter"),
        estimated=_flag({"estimated": False, **table}, "estimated"),
        **_state(table),
        caches=_listed(table, "caches", CacheLevel),
        matrix_rates=_listed(table, "matrix_rates", MatrixRate),
        providers=_listed(table, "providers", Provider),
        energy_counters=_listed(table, "energy_counters", EnergyCounter),
        sources=tuple(_text({"sources": item}, "sources") for item in _sources(table)),
    )


def read_profile(path: Path) -> DeviceProfile:
    """Read a profile from a file.

    Args:
        path: a TOML file.

    Returns:
        The profile.

    Raises:
        InputError: if the file cannot be read, or is not a profile.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"device profile {path} cannot be read: {error}") from error
    try:
        return parse_profile(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _sources(table: dict[str, object]) -> list[object]:
    return _list({"sources": [], **table}, "sources")


class _State(TypedDict):
    affinity_cpus: int
    quota_cpus: float
    free_bytes: int
    storage_read: float
    storage_write: float
    power_source: str
    temperature_c: float | None
    others_busy: float | None


def _state(table: Mapping[str, object]) -> _State:
    source = table.get("power_source", "unknown")
    if source not in POWER_SOURCES:
        known = ", ".join(POWER_SOURCES)
        raise InputError(f"device profile: power_source is {source!r}, must be one of {known}")
    celsius, busy = table.get("temperature_c"), table.get("others_busy")
    return _State(
        affinity_cpus=int(_at_least_zero(table, "affinity_cpus")),
        quota_cpus=_at_least_zero(table, "quota_cpus"),
        free_bytes=int(_at_least_zero(table, "free_bytes")),
        storage_read=_at_least_zero(table, "storage_read"),
        storage_write=_at_least_zero(table, "storage_write"),
        power_source=str(source),
        temperature_c=None if celsius is None else _number(celsius, "temperature_c", least=-273.15),
        others_busy=None if busy is None else _number(busy, "others_busy", least=0),
    )


def _at_least_zero(table: Mapping[str, object], key: str) -> float:
    return _number(table.get(key, 0), key, least=0)


def _number(value: object, key: str, *, least: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= sys.float_info.max
    ):
        raise InputError(f"device profile: {key} is {value!r}, must be a number from {least:g} on")
    return float(value)


def _listed(table: Mapping[str, object], key: str, kind: type[_T]) -> tuple[_T, ...]:
    given = table.get(key, [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InputError(f"device profile: {key} is no list of tables: write [[{key}]]")
    try:
        return tuple(
            filled(kind, one, where=f"device profile: {key} {number}")
            for number, one in enumerate(given, start=1)
        )
    except RecipeError as error:
        raise InputError(str(error)) from error


def _text(table: dict[str, object], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise InputError(f"device profile: {key} is {value!r}, must be a text")
    return value


def _whole(table: dict[str, object], key: str) -> int:
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"device profile: {key} is {value!r}, must be a whole number above 0")
    return value


def _flag(table: dict[str, object], key: str) -> bool:
    value = table[key]
    if not isinstance(value, bool):
        raise InputError(f"device profile: {key} is {value!r}, must be true or false")
    return value


def _list(table: dict[str, object], key: str) -> list[object]:
    value = table.get(key)
    if not isinstance(value, list):
        raise InputError(f"device profile: {key} is {value!r}, must be a list")
    return value


def _rates(table: dict[str, object], key: str) -> tuple[float, ...]:
    return tuple(_positive(item, key) for item in _list(table, key))


def _positive(value: object, key: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= sys.float_info.max
    ):
        raise InputError(f"device profile: {key} is {value!r}, must be a number above 0")
    return float(value)
