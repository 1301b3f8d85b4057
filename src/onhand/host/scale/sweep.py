"""A sweep: each source, for each device, within each budget; read from TOML that people write."""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.budget import AXES, parse_budget
from onhand.core.errors import InputError, RecipeError
from onhand.core.manifest import NAME
from onhand.core.profile import read_profile, render_profile
from onhand.core.tables import unknown
from onhand.device.known_devices import known_device, known_devices
from onhand.host.scale.trial import Trial

__all__ = ["FORMAT", "Sweep", "key_of", "parse_sweep", "read_sweep"]

FORMAT: Final = 1
_TOP: Final = ("format", "name", "source", "device", "budget", "options")
# Options of a build that name files: they are looked for beside the sweep's file.
_PATHS: Final = frozenset(
    {"adapter", "calibrate", "recipe", "data", "heldout", "labels", "feed"},
)
# Said by the sweep itself.
_OURS: Final = frozenset({"as_json", "budget", "device", "output", "plan", "resume"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is built.

    Attributes:
        name: of the sweep.
        trials: every source, device and budget, in the file's order.
        is_timed: whether a budget limits what other work on the machine would disturb.
    """

    name: str
    trials: tuple[Trial, ...]
    is_timed: bool


def read_sweep(path: Path, options: Mapping[str, bool]) -> Sweep:
    """Read a sweep from a file.

    Args:
        path: a TOML file; what it names is looked for beside it.
        options: of `onhand build`: name -> whether it is a flag.

    Returns:
        The sweep.

    Raises:
        InputError: if it cannot be read, or a profile or a budget that it names is wrong.
        RecipeError: if a key or a value in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"sweep {path} cannot be read: {error}") from error
    return parse_sweep(text, options, folder=path.parent, where=str(path))


def parse_sweep(text: str, options: Mapping[str, bool], *, folder: Path, where: str) -> Sweep:
    """Read a sweep.

    Args:
        text: TOML.
        options: of `onhand build`: name -> whether it is a flag.
        folder: in which its files are.
        where: the file's name, for messages.

    Returns:
        The sweep.

    Raises:
        RecipeError: if a key or a value in it is wrong.
        InputError: if a profile or a budget that it names is wrong.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: is not TOML: {error}") from error
    for key in table:
        if key not in _TOP:
            raise RecipeError(f"{where}: {unknown('key', key, _TOP)}")
    if table.get("format") != FORMAT or isinstance(table.get("format"), bool):
        raise RecipeError(f"{where}: format {table.get('format')!r}, this reader knows {FORMAT}")
    shared = _words(table.get("options", {}), options, folder, f"{where}: options")
    sources = [
        (str(one["name"]), _source(one, options, folder, f"{where}: source {one['name']}"))
        for one in _named(table, "source", where)
    ]
    devices = _devices(table, folder, where)
    budgets = _budgets(table, where)
    trials = [
        Trial(
            name="-".join(part for part in (source, device, budget) if part),
            source=source,
            device=device,
            budget=budget,
            words=(*words, *shared, *(["--budget", limits] if limits else [])),
            profile=profile,
        )
        for source, words in sources
        for device, profile in devices
        for budget, limits in budgets
    ]
    _check_names(trials, where)
    limited = {key for _, limits in budgets if limits for key in parse_budget(limits).limits()}
    return Sweep(
        name=str(table.get("name", "sweep")),
        trials=tuple(trials),
        is_timed=any(AXES[key].timed for key in limited),
    )


def key_of(trial: Trial) -> str:
    """Return what a trial is, in one word: the same for the same work."""
    named = repr((trial.name, trial.words, trial.profile))
    return hashlib.sha256(named.encode()).hexdigest()


def _named(table: Mapping[str, object], key: str, where: str) -> list[dict[str, object]]:
    """Return a list of tables, each with a name.

    Raises:
        RecipeError: if it is missing or of another form.
    """
    given = table.get(key)
    if not isinstance(given, list) or not given or not all(isinstance(o, dict) for o in given):
        raise RecipeError(f"{where}: write at least one [[{key}]]")
    for one in given:
        name = one.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise RecipeError(
                f"{where}: {key}: its name is {name!r}, must be 1 to 100 of letters, digits and "
                f". _ + -"
            )
    return given


def _profile(given: str, folder: Path) -> str:
    """Return the profile of a known device, or of a file beside the sweep's."""
    is_known = given in known_devices()
    return render_profile(known_device(given) if is_known else read_profile(folder / given))


def _devices(table: Mapping[str, object], folder: Path, where: str) -> list[tuple[str, str | None]]:
    if "device" not in table:
        return [("", None)]
    found: list[tuple[str, str | None]] = []
    for one in _named(table, "device", where):
        _only(one, ("name", "profile"), f"{where}: device {one['name']}")
        given = one.get("profile")
        found.append((str(one["name"]), None if given is None else _profile(str(given), folder)))
    return found


def _budgets(table: Mapping[str, object], where: str) -> list[tuple[str, str]]:
    if "budget" not in table:
        return [("", "")]
    found: list[tuple[str, str]] = []
    for one in _named(table, "budget", where):
        _only(one, ("name", "limits"), f"{where}: budget {one['name']}")
        limits = one.get("limits")
        if not isinstance(limits, str):
            raise RecipeError(f"{where}: budget {one['name']}: limits is {limits!r}: write a text")
        parse_budget(limits)
        found.append((str(one["name"]), limits))
    return found


def _source(
    one: Mapping[str, object], options: Mapping[str, bool], folder: Path, where: str
) -> list[str]:
    given = one.get("from")
    if not isinstance(given, str):
        raise RecipeError(f"{where}: from is {given!r}: write a folder, a file or an id on a hub")
    rest = {key: value for key, value in one.items() if key not in {"name", "from"}}
    place = folder / given
    return [
        str(place.resolve()) if place.exists() else given,
        *_words(rest, options, folder, where),
    ]


def _words(table: object, options: Mapping[str, bool], folder: Path, where: str) -> list[str]:
    """Return options as on a command line.

    Raises:
        RecipeError: if one is unknown, the sweep's own, or of another type.
    """
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: must be a table")
    known = sorted(set(options) - _OURS)
    words: list[str] = []
    for key, value in table.items():
        if key not in known:
            raise RecipeError(f"{where}: {unknown('option', key, known)}")
        if options[key] != isinstance(value, bool) or not isinstance(
            value, bool | int | float | str
        ):
            expected = "true or false" if options[key] else "a text or a number"
            raise RecipeError(f"{where}: {key} is {value!r}, must be {expected}")
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words += [option] if value else []
        else:
            text = str((folder / str(value)).resolve()) if key in _PATHS else str(value)
            words += [option, text]
    return words


def _only(one: Mapping[str, object], known: Sequence[str], where: str) -> None:
    for key in one:
        if key not in known:
            raise RecipeError(f"{where}: {unknown('key', key, known)}")


def _check_names(trials: Sequence[Trial], where: str) -> None:
    names = [trial.name for trial in trials]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"{where}: two trials would be called {name!r}; name them apart")
        if not NAME.fullmatch(name):
            raise RecipeError(f"{where}: {name!r} is too long for a bundle's name")
