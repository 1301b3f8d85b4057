"""Models as requests see them that may or may not be open: they are opened when they are asked."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError
from onhand.device.learning.in_use import InUse
from onhand.device.networks.answers import Likely
from onhand.device.sampling import Sampling
from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.serving.models.facts import Facts, stamp_of
from onhand.device.serving.models.fingerprints import fingerprint_with
from onhand.device.serving.models.governing import GovernedBatcher
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.models.network import ServedNetwork
from onhand.device.serving.models.versions import Entry
from onhand.device.serving.refusals import Refusal, RefusedRequest

if TYPE_CHECKING:
    from onhand.device.serving.models.shelf import Shelf

__all__ = ["ShelvedModel", "ShelvedNetwork", "look_soon", "shelved", "variant_of"]


class _Shelved:
    """What both kinds share.

    Attributes:
        entry: whose models.
        name: what requests call it.
    """

    def __init__(self, shelf: "Shelf", entry: Entry, *, variant: str | None = None) -> None:
        """Ask an entry.

        Args:
            shelf: where its models are opened.
            entry: of the shelf.
            variant: the variant that is asked; None for the one that is preferred at the time.
        """
        self.entry = entry
        self.name = entry.name if variant is None else f"{entry.name}:{variant}"
        self._shelf = shelf
        self._variant = variant

    @property
    def engine_name(self) -> str:
        """What computes its answers, or is likely to."""
        return self._facts.engine_name

    @property
    def n_active(self) -> int:
        """Requests that have not ended, those that wait for it included."""
        return sum(one.n_leases + len(one.tickets) for one in self.entry.all_places())

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that can be asked by NAME:VARIANT."""
        return tuple(sorted(self.entry.version.places))

    def of_variant(self, variant: str) -> "_Shelved":
        """Return the same model in one variant, whichever is preferred."""
        return type(self)(self._shelf, self.entry, variant=variant)

    def prefer_variant(self, variant: str) -> None:
        """Answer with another variant from now on; see `Shelf.prefer_variant`.

        Raises:
            InputError: if there is no such variant that can be run here.
        """
        self._shelf.prefer_variant(self.entry, variant)

    def reload(self) -> bool:
        """See whether the bundle was replaced; see `Shelf.look`.

        Returns:
            Whether another version is about to answer.

        Raises:
            RefusedRequest: if what lies at its place is no bundle, or one that cannot be used.
        """
        if self._shelf.look(self.entry, again=True):
            return True
        stays = "the version that answers stays"
        if stamp_of(Path(self.entry.settings.bundle)) is None:
            message = f"there is no bundle at the place of {self.name}; {stays}"
            raise RefusedRequest(Refusal(status=409, message=message, code="no_bundle"))
        if self.entry.refused is not None:
            message = f"the bundle at the place of {self.name} cannot be used: see the log; {stays}"
            raise RefusedRequest(Refusal(status=409, message=message, code="bundle"))
        return False

    def look_soon(self) -> None:
        """Have it looked whether a bundle was replaced; see `Shelf.look_soon`."""
        self._shelf.look_soon()

    def described(self) -> Mapping[str, object]:
        """Return how it stands, for the list of models."""
        place = self.entry.place(self._variant)
        facts = place.facts
        state = {"wanted": "waiting", "leaving": "closing"}.get(place.stage, place.stage)
        return {
            "state": state,
            "loaded_bytes": self._shelf.loaded_bytes(self.entry),
            "expected_bytes": facts.footprint.idle_bytes,
            "variant": facts.variant or None,
            "variants": list(self.variants),
            "version": facts.version,
            "bundle_sha256": facts.bundle_sha256,
            "learned_version": facts.learned.number,
        }

    def break_off(self) -> None:
        """End all answers that run, and take no more."""
        self._shelf.break_off(self.entry)

    def close(self) -> None:
        """Break answers off and release what it holds; safe to call twice."""
        self._shelf.close_entry(self.entry)

    @property
    def bundle_sha256(self) -> str:
        """Hash of the manifest of the bundle that would answer now."""
        return self._facts.bundle_sha256

    @property
    def learned(self) -> InUse:
        """Which learned version would answer now."""
        return self._facts.learned

    @property
    def _facts(self) -> Facts:
        return self.entry.place(self._variant).facts


class ShelvedModel(_Shelved):
    """See `onhand.device.serving.asks.TextModel`."""

    @property
    def usual(self) -> Sampling:
        """See `TextModel`."""
        return self._facts.usual

    @property
    def context(self) -> int:
        """See `TextModel`; what the memory has room for, where that is less."""
        return self._facts.context

    @property
    def fingerprint(self) -> str:
        """See `TextModel`: of what would answer now."""
        return self._facts.fingerprint

    @property
    def prefix_cache_bytes(self) -> int:
        """See `TextModel`."""
        models = [place.model for place in self.entry.all_places()]
        return sum(one.prefix_cache_bytes for one in models if isinstance(one, LocalModel))

    def govern_variant(self, name: str | None) -> None:
        """See `PrefersVariant`."""
        version = self.entry.version
        wanted = name or version.default
        self.prefer_variant(wanted if wanted in version.places else version.default)

    def governables(self) -> list[GovernedBatcher]:
        """See `HoldsGovernable`: of the models that are open."""
        models = [place.model for place in self.entry.all_places()]
        return [one.governed for one in models if isinstance(one, LocalModel)]

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """See `Backend`.

        Yields:
            As in `Backend`.

        Raises:
            EngineError: if the bundle's kind is another one by now.
            OnhandError: as in `Backend`, and in `Shelf.lease`.
        """
        lease = await self._shelf.lease(self.entry, self._variant)
        try:
            if not isinstance(lease.model, LocalModel):
                raise EngineError(f"{self.name} does not answer in text")
            async with aclosing(lease.model.answer(ask)) as parts:
                async for part in parts:
                    if isinstance(part, Piece):
                        yield part
                    else:
                        # An answer that the model cut short is told apart already.
                        yield replace(part, fingerprint=part.fingerprint or lease.fingerprint)
        finally:
            lease.release()


class ShelvedNetwork(_Shelved):
    """See `onhand.device.serving.models.network.NetworkModel`."""

    @property
    def task(self) -> str:
        """See `NetworkModel`."""
        return self._facts.task

    @property
    def fingerprint(self) -> str:
        """The same for networks whose vectors can be compared: of what would compute now."""
        facts = self._facts
        return fingerprint_with(f"{facts.bundle_sha256} {facts.variant}", facts.learned)

    @property
    def reads_pictures(self) -> bool:
        """See `NetworkModel`."""
        return self._facts.reads_pictures

    async def embed(self, texts: Sequence[str]) -> tuple[FloatArray, int]:
        """See `NetworkModel`."""
        lease = await self._shelf.lease(self.entry, self._variant)
        try:
            return await self._network(lease.model).embed(texts)
        finally:
            lease.release()

    async def compare(self, text: str, others: Sequence[str]) -> FloatArray:
        """See `NetworkModel`."""
        lease = await self._shelf.lease(self.entry, self._variant)
        try:
            return await self._network(lease.model).compare(text, others)
        finally:
            lease.release()

    async def classify(self, example: str | bytes, *, top: int) -> list[Likely]:
        """See `NetworkModel`."""
        lease = await self._shelf.lease(self.entry, self._variant)
        try:
            return await self._network(lease.model).classify(example, top=top)
        finally:
            lease.release()

    def _network(self, model: object) -> ServedNetwork:
        if not isinstance(model, ServedNetwork):
            raise EngineError(f"{self.name} computes no vectors or classes")
        return model


def shelved(shelf: "Shelf", entry: Entry) -> ShelvedModel | ShelvedNetwork:
    """Return an entry as requests see it.

    Args:
        shelf: where its models are opened.
        entry: of the shelf.

    Returns:
        A model that answers in text, or a network, as the bundle's kind says.
    """
    if entry.place().facts.is_network:
        return ShelvedNetwork(shelf, entry)
    return ShelvedModel(shelf, entry)


def variant_of(models: Mapping[str, object], name: str) -> ShelvedModel | ShelvedNetwork | None:
    """Return a model by NAME:VARIANT.

    Args:
        models: name -> model.
        name: what a request calls it.

    Returns:
        The model in that variant; None where there is none.
    """
    base, _, variant = name.rpartition(":")
    model = models.get(base)
    if isinstance(model, ShelvedModel | ShelvedNetwork) and variant in model.variants:
        found = model.of_variant(variant)
        return found if isinstance(found, ShelvedModel | ShelvedNetwork) else None
    return None


def look_soon(models: Mapping[str, object]) -> None:
    """Have all bundles looked at again; may be called by a signal's handler.

    Args:
        models: name -> model.
    """
    for model in models.values():
        if isinstance(model, ShelvedModel | ShelvedNetwork):
            model.look_soon()
