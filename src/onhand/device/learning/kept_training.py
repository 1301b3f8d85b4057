"""A training as it is kept on the disk after each step, and read again."""

from collections.abc import Mapping

import numpy as np

from onhand.core.errors import InputError
from onhand.device.learning.durable import Saved
from onhand.device.learning.guards import Guard
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.kept import Kept
from onhand.device.learning.order import Place
from onhand.device.learning.training import Training

__all__ = ["restored", "saved"]


def saved(training: Training, method: Method, *, fingerprint: str) -> Saved:
    """Return a training as `Generations` keeps it.

    Args:
        training: the state.
        method: whose state goes with it.
        fingerprint: of all that decides the training.
    """
    arrays: dict[str, np.ndarray] = {"losses": training.losses}
    arrays |= {f"value.{name}": value for name, value in training.values.items()}
    arrays |= {f"kept.{name}": value for name, value in training.kept.items()}
    arrays |= {f"begun.{name}": value for name, value in training.begun.items()}
    arrays |= {f"mean.{name}": value for name, value in training.means.items()}
    kept = method.save()
    fields: dict[str, object] = {
        "energy_j": training.energy_j,
        "fingerprint": fingerprint,
        "guard": [training.guard.most_in_row, training.guard.skipped, training.guard.in_row],
        "is_ended": training.is_ended,
        "method": method.name,
        "method_facts": dict(kept.facts),
        "n_examples": training.n_examples,
        "n_means": training.n_means,
        "place": _placed(training.place),
        "seconds": training.seconds,
        "step": training.step,
    }
    # The end of a session is a generation of its own.
    number = training.step + (1 if training.is_ended else 0)
    return Saved(number=number, fields=fields, arrays=arrays, parts=kept.parts)


def _placed(place: Place) -> list[int]:
    return [place.round, place.taken, place.size, place.known]


def restored(found: Saved, method: Method, *, fingerprint: str) -> Training | None:
    """Return the training that was kept, and give the method its state back.

    Args:
        found: what `Generations` read.
        method: gets its state.
        fingerprint: of all that decides the training.

    Returns:
        The training; None where another one was kept.

    Raises:
        InputError: if it is not one that `saved` returned.
    """
    fields = found.fields
    if fields.get("fingerprint") != fingerprint or fields.get("method") != method.name:
        return None
    try:
        place, guard = _wholes(fields["place"]), _wholes(fields["guard"])
        seconds, energy_j = fields["seconds"], fields["energy_j"]
        n_examples, n_means, step = _wholes([
            fields[name] for name in ("n_examples", "n_means", "step")
        ])
        facts = fields["method_facts"]
        training = Training(
            step=step,
            values=_named(found.arrays, "value."),
            kept=_named(found.arrays, "kept."),
            place=Place(round=place[0], taken=place[1], size=place[2], known=place[3]),
            guard=Guard(most_in_row=guard[0], skipped=guard[1], in_row=guard[2]),
            losses=found.arrays["losses"],
            seconds=_number(seconds),
            energy_j=None if energy_j is None else _number(energy_j),
            n_examples=n_examples,
            means=_named(found.arrays, "mean."),
            n_means=n_means,
            begun=_named(found.arrays, "begun."),
            is_ended=fields["is_ended"] is True,
        )
    except (KeyError, IndexError) as error:
        raise InputError(f"state of a training: it has no {error}") from error
    if not isinstance(facts, dict):
        raise InputError("state of a training: its method kept no facts")
    method.load(Kept(facts=facts, parts=found.parts))
    return training


def _named(arrays: Mapping[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    return {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}


def _wholes(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise InputError(f"state of a training: {value!r} are no whole numbers")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"state of a training: {value!r} is no number")
    return float(value)
