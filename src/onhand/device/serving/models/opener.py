"""Opening and closing the models of a shelf, and measuring what they take."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from onhand.core.errors import EngineUnavailable, OnhandError, ResourceError
from onhand.device.freed_memory import give_back_memory
from onhand.device.serving.models.desk import Account, Desk
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.models.memory import SessionMemory
from onhand.device.serving.models.network import ServedNetwork
from onhand.device.serving.models.place import OpenModel, Place
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.settings import ModelSettings

__all__ = ["OpenServed", "Opener"]

_LOG = logging.getLogger("onhand.serving")


class OpenServed(Protocol):
    """Opens a bundle, as `onhand.device.serving.models.opening.open_served` does."""

    def __call__(
        self, settings: ModelSettings, *, home: Path | None, memory: SessionMemory
    ) -> OpenModel:
        """Return the model."""
        ...


class Opener:
    """Opens and closes models, one at a time."""

    def __init__(
        self,
        desk: Desk,
        settings: ShelfSettings,
        *,
        home: Path | None,
        open_model: OpenServed,
        resident: Callable[[], int],
    ) -> None:
        """Prepare it.

        Args:
            desk: where models have their places.
            settings: how long one stays.
            home: the state folder; None for the user's own.
            open_model: opens a bundle.
            resident: memory that this process has in use.
        """
        self._desk = desk
        self._settings = settings
        self._home = home
        self._open_model = open_model
        self._resident = resident

    def open(self, place: Place) -> OnhandError | None:
        """Open a model, and give it to those who wait.

        Returns:
            Why it could not be opened, of which nobody has been told; None where it was.
        """
        desk = self._desk
        with desk.lock:
            is_quiet = self._is_quiet()
            predicted = place.weights_bytes
        before, begun_s = self._resident(), desk.clock()
        try:
            model = self._opened(place)
        except OnhandError as error:
            give_back_memory()
            _LOG.error("model %s: cannot be opened: %s", place.facts.name, error)
            return error
        took, opening_s = self._resident() - before, desk.clock() - begun_s
        if isinstance(model, LocalModel):  # it may give those up
            took -= model.prefix_cache_bytes
        with desk.lock:
            # Beside answers nobody can say what took the memory: the prediction stays then.
            is_quiet = is_quiet and self._is_quiet() and took > 0
            desk.places.opened(
                place,
                model,
                weights_bytes=took + place.facts.footprint.spare_bytes if is_quiet else 0,
                opening_s=opening_s,
                now_s=desk.clock(),
                stay_s=self._settings.stay_s(opening_s),
            )
            desk.tell_all()
        _LOG.info(
            "model %s: opened%s in %.2f s with engine %s; %d bytes, %d were predicted",
            *(place.facts.name, _variant(place), opening_s, model.engine_name),
            *(place.weights_bytes, predicted),
        )
        return None

    def close(self, place: Place) -> None:
        """Close a model that no answer uses."""
        model = place.model
        if model is not None:
            model.close()
            _LOG.info("model %s: closed%s", place.facts.name, _variant(place))
        # What lies in the place only; this thread's own reference would keep it in memory.
        del model
        place.model = None
        give_back_memory()
        with self._desk.lock:
            self._desk.places.closed(place)
            self._desk.tell_all()

    def _opened(self, place: Place) -> OpenModel:
        name = place.facts.name
        try:
            model = self._open_model(
                place.facts.settings, home=self._home, memory=Account(self._desk, place)
            )
            try:
                found = (model.bundle_sha256, model.learned.sha256)
                if found != (place.facts.bundle_sha256, place.facts.learned.sha256):
                    raise EngineUnavailable("the bundle was replaced while it was opened")
                place.facts = place.facts.as_opened(model.engine_name)
                if isinstance(model, ServedNetwork):  # what was learned may give it another task
                    place.facts = replace(place.facts, task=model.task)
                if isinstance(model, LocalModel):
                    model.warm_up()
            except BaseException:
                model.close()
                raise
        except OnhandError:
            raise
        except MemoryError as error:
            raise ResourceError(f"{name}: there is no memory to open it") from error
        except Exception as error:  # this thread must go on: others wait for it
            raise EngineUnavailable(f"{name}: opening it failed: {error}") from error
        return model

    def _is_quiet(self) -> bool:
        return all(place.n_leases == 0 for place in self._desk.places)


def _variant(place: Place) -> str:
    return f" {place.facts.variant}" if place.facts.variant else ""
