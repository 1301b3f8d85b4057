"""Another learned version of a bundle takes over in what is open, without opening it again."""

import logging
from pathlib import Path

from onhand.core.adapter import Adapter
from onhand.core.bundle import unchecked_bundle
from onhand.device.learning.in_use import choose_version, learned_adapter
from onhand.device.serving.models.desk import Desk
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.models.versions import Entry, Version

__all__ = ["changed_in_place"]

_LOG = logging.getLogger("onhand.serving")
_NOTHING = "0" * 64


def changed_in_place(entry: Entry, version: Version, desk: Desk, home: Path | None) -> bool:
    """Let a learned version take over where all that is open can change while it answers.

    Args:
        entry: whose.
        version: what was read now.
        desk: where the models have their places.
        home: the state folder.

    Returns:
        Whether it answers now; False where it must be opened beside what answers, or it is not
        the same bundle, or the same in all.

    Raises:
        OnhandError: if the version cannot be read; what answers stays.
    """
    before = entry.version
    if before.bundle_sha256 != version.bundle_sha256 or before.identity == version.identity:
        return False
    if home is None or entry.coming is not None or before.places.keys() != version.places.keys():
        return False
    places = list(before.places.values())
    models = [place.model for place in places if place.model is not None]
    if any(place.stage not in {"closed", "open"} for place in places):
        return False
    if not all(isinstance(one, LocalModel) and one.version.can_change for one in models):
        return False
    adapter = _adapter(version, home)
    for model in models:
        if isinstance(model, LocalModel):
            model.version.change(adapter, version.learned)
    with desk.lock:
        for place in places:
            place.facts = place.facts.with_learned(version.learned)
    _LOG.info("model %s: %s answers", entry.name, version.learned.sentence())
    return True


def _adapter(version: Version, home: Path) -> Adapter:
    facts = version.places[version.default].facts
    root = Path(facts.settings.bundle)
    bundle = unchecked_bundle(root)
    _, learned = choose_version(bundle, home, version.learned.number)
    if learned is None:
        return Adapter(pairs={}, sha256=_NOTHING)
    return learned_adapter(bundle, home, learned)
