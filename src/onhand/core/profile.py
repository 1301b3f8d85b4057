"""What a device has, as data: read and written as TOML."""

import difflib
import json
import sys
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from onhand.core.errors import InputError

__all__ = ["DeviceProfile", "parse_profile", "read_profile", "render_profile"]

FORMAT = 1


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
        watts: power that a busy processor draws beyond idle, for energy estimates.
        watts_source: where `watts` comes from.
        energy_counter: path of a readable energy counter, or "" where there is none.
        estimated: True if the figures come from public sources, not from a probe.
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


def render_profile(profile: DeviceProfile) -> str:
    """Write a profile as TOML; `parse_profile` reads it."""
    lines = [f"format = {FORMAT}"]
    for field in fields(profile):
        value = getattr(profile, field.name)
        # JSON's strings, numbers, booleans and flat lists are TOML's as well, but for a bare
        # DEL, and for pairs of surrogates instead of one character.
        shown = list(value) if isinstance(value, tuple) else value
        text = json.dumps(shown, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{field.name} = {text}")
    return "\n".join(lines) + "\n"


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
    if (found := table.pop("format", None)) != FORMAT:
        raise InputError(f"device profile: format {found!r}, this reader knows {FORMAT}")
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
        read_bandwidth=tuple(
            _positive(item, "read_bandwidth") for item in _list(table, "read_bandwidth")
        ),
        watts=_positive(table.get("watts"), "watts"),
        watts_source=_text(table, "watts_source"),
        energy_counter=_text({"energy_counter": "", **table}, "energy_counter"),
        estimated=_flag({"estimated": False, **table}, "estimated"),
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


def _positive(value: object, key: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= sys.float_info.max
    ):
        raise InputError(f"device profile: {key} is {value!r}, must be a number above 0")
    return float(value)
