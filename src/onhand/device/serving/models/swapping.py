"""Another version or variant takes over: opened beside what answers, and asked once it is open."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from onhand.device.serving.models.facts import Stamp
from onhand.device.serving.models.place import Place
from onhand.device.serving.models.places import Places
from onhand.device.serving.models.versions import Coming, Entry, Version

__all__ = ["Swaps"]

_LOG = logging.getLogger("onhand.serving")


class Swaps:
    """What takes over from what. One thread at a time."""

    def __init__(self, places: Places, *, most_wait_s: float) -> None:
        """Start with none.

        Args:
            places: where models are opened.
            most_wait_s: seconds that what comes waits for room beside what answers; then the
                two do not fit, and what answers leaves first.
        """
        self._places = places
        self._most_wait_s = most_wait_s

    def prefer(self, entry: Entry, variant: str, now_s: float) -> None:
        """Let requests get another variant as soon as it is open; see `Shelf.prefer_variant`."""
        coming = entry.coming
        if variant == (entry.variant if coming is None else coming.variant):
            return  # it is said every second
        if coming is not None and coming.version is not entry.version:
            if variant in coming.version.places:  # it is opened when it is asked then
                entry.coming = replace(coming, variant=variant)
            return
        self._abandon(entry)
        place, current = entry.version.places[variant], entry.place()
        if place is current or not current.is_there or place.stage == "open":
            self._prefer_now(entry, variant)
            return
        coming = Coming(
            version=entry.version,
            stamp=entry.stamp,
            variant=variant,
            opening=(place,),
            since_s=now_s,
        )
        self._begin(entry, coming, (current,))

    def replace(
        self,
        entry: Entry,
        version: Version,
        stamp: Stamp,
        now_s: float,
        *,
        is_failing: bool = False,
    ) -> bool:
        """Let another version take over.

        Args:
            entry: whose.
            version: the new one.
            stamp: its stamp.
            now_s: the time.
            is_failing: whether the one before cannot be opened any more: requests wait for the
                new one then.

        Returns:
            Whether it is another one.
        """
        self._abandon(entry)
        if version.identity == entry.version.identity:
            entry.stamp = stamp
            return False
        variant = entry.variant if entry.variant in version.places else version.default
        in_use = {
            (name if name in version.places else variant): place
            for name, place in entry.version.places.items()
            if place.is_there or place.tickets
        }
        _LOG.info("model %s: version %s lies at its place", entry.name, version.bundle_sha256[:12])
        coming = Coming(
            version=version,
            stamp=stamp,
            variant=variant,
            opening=tuple(version.places[name] for name in in_use),
            since_s=now_s,
        )
        if is_failing:
            self._take_over(entry, coming)
        else:
            self._begin(entry, coming, tuple(in_use.values()))
        return True

    def settle(self, entries: Iterable[Entry], now_s: float) -> None:
        """Let what is open take over, and give up what could not be opened."""
        for entry in entries:
            entry.old = [one for one in entry.old if one.is_there or one.tickets]
            coming = entry.coming
            if coming is None:
                continue
            if any(place.failure is not None for place in coming.opening):
                _LOG.error("model %s: what answers stays", entry.name)
                entry.refused = None if coming.version is entry.version else coming.stamp
                self._abandon(entry)
            elif all(place.stage == "open" for place in coming.opening):
                self._take_over(entry, coming)
            elif now_s >= coming.since_s + self._most_wait_s and any(
                place.stage == "wanted" for place in coming.opening
            ):
                _LOG.warning("model %s: there is no room for both, the old one goes", entry.name)
                self._take_over(entry, coming)

    def _begin(self, entry: Entry, coming: Coming, replaced: Sequence[Place]) -> None:
        room = self._places.total_bytes - self._places.set_aside_bytes
        needs = sum(self._places.least_bytes(place) for place in coming.opening)
        if needs + sum(place.weights_bytes for place in replaced) > room:
            _LOG.warning("model %s: there is no room for both, the old one goes", entry.name)
            self._take_over(entry, coming)
            return
        for place, before in zip(coming.opening, replaced, strict=True):
            if place.stage == "closed":
                place.failure = None
                self._places.want_beside(place, before)
        entry.coming = coming
        if not coming.opening:
            self._take_over(entry, coming)

    def _take_over(self, entry: Entry, coming: Coming) -> None:
        entry.coming = None
        for place in coming.opening:
            place.replaces = None
        if coming.version is entry.version:
            self._prefer_now(entry, coming.variant)
            return
        before, entry.version, entry.stamp = entry.version, coming.version, coming.stamp
        self._prefer_now(entry, coming.variant)
        for name, place in before.places.items():
            if place.is_there or place.tickets:
                entry.old.append(place)
            self._places.retire(place, entry.place(name))
        _LOG.info("model %s: version %s answers", entry.name, entry.version.bundle_sha256[:12])

    def _abandon(self, entry: Entry) -> None:
        coming, entry.coming = entry.coming, None
        if coming is None:
            return
        for place in coming.opening:
            place.replaces = None
            if coming.version is not entry.version:
                self._places.retire(place, None)
                if place.is_there:
                    entry.old.append(place)
            else:
                self._places.drop_unwanted(place)

    def _prefer_now(self, entry: Entry, variant: str) -> None:
        if entry.variant != variant:
            _LOG.info("model %s: variant %s answers", entry.name, variant)
        entry.variant = variant
