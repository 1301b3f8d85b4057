"""From settings to models on a shelf, and what would fit."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.device.serving.models.shelves import Openings, bundle_saying

from onhand.core.errors import InputError
from onhand.device.serving.backends.settings import BackendSettings
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.settings import (
    CacheSettings,
    ModelSettings,
    NetworkSettings,
    ServeSettings,
)
from onhand.device.serving.shelving import open_at_start, opened_shelf, shelved_models, what_fits

MIB = 2**20


def settings_of(place: Path, *names: str, room: int, **more: str) -> ServeSettings:
    """Toy bundles, each about 12 MiB, and so much room."""
    models = tuple(
        ModelSettings(bundle=str(bundle_saying(place / name, name)), name=name) for name in names
    )
    models = tuple(replace(one, load=more.get(one.name, "start")) for one in models)
    return ServeSettings(
        server=NetworkSettings(memory_bytes=room),
        models=models,
        shelf=ShelfSettings(watch_s=0.0),
        cache=CacheSettings(exact_bytes=0, blocks_bytes=0),
    )


def opened(settings: ServeSettings, place: Path, openings: Openings) -> list[str]:
    """What is told while models are opened."""
    told: list[str] = []
    with opened_shelf(
        settings, home=place / "home", open_model=openings, resident=lambda: 0
    ) as shelf:
        shelved_models(shelf, settings)
        open_at_start(shelf, told=told.append)
    return told


def test_models_are_opened_as_long_as_there_is_room(tmp_path: Path) -> None:
    """Those that are for later, and those for which there is none, wait for a request."""
    openings = Openings()
    settings = settings_of(tmp_path, "a", "b", "c", room=20 * MIB, b="demand")

    assert opened(settings, tmp_path, openings) == [
        "a: engine reference",
        "b: is opened when it is asked",
        "c: there is no room for it beside the others; is opened when it is asked",
    ]
    assert openings.made == ["a:float"]


def test_a_model_that_never_fits_ends_the_start(tmp_path: Path) -> None:
    """With both numbers, not at the first request."""
    settings = settings_of(tmp_path, "a", room=5 * MIB)

    with pytest.raises(RefusedRequest, match=f"take {5 * MIB}"):
        opened(settings, tmp_path, Openings())


def test_what_fits_is_said_without_opening_anything(tmp_path: Path) -> None:
    """The budget, then each model: what it is likely to take, and whether there is room."""
    settings = settings_of(tmp_path, "a", "b", "c", room=20 * MIB, b="demand")
    found = list(what_fits(settings, home=tmp_path))

    assert found[0] == "memory: 20.0 MiB for models and conversations"
    assert [line.rsplit(": ", 1)[1] for line in found[1:]] == [
        "fits",
        "fits, when it is asked",
        "is opened when it is asked",
    ]
    assert found[1].startswith("a: engine reference, about 12.0 MiB and ")
    small = replace(settings, server=NetworkSettings(memory_bytes=MIB))
    assert list(what_fits(small, home=tmp_path))[1].endswith("does not fit, even alone")


def test_an_encoder_that_is_none_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    """A name that is not served, here or by another server, and a model of another kind."""
    settings = settings_of(tmp_path, "a", room=20 * MIB)
    far = replace(settings, backends=(BackendSettings(name="far", url="https://far.example/v1"),))
    for given, name, message in (
        (settings, "b", "there is no model 'b' here, but a"),
        (far, "far", "semantic_encoder 'far' must be a bundle for text-embedding"),
        (settings, "a", "semantic_encoder 'a' must be a bundle for text-embedding"),
    ):
        cache = replace(given.cache, semantic_encoder=name, semantic_bytes=MIB)
        wrong = replace(given, cache=cache)
        with pytest.raises(InputError, match=message):
            list(what_fits(wrong, home=tmp_path))


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        (CacheSettings(exact_bytes=MIB, blocks_bytes=0), 0),
        (CacheSettings(exact_bytes=MIB, blocks_bytes=0, on_disk=False), MIB),
        (CacheSettings(exact_bytes=0, warm_bytes=3 * MIB), 3 * MIB),
        (CacheSettings(exact_bytes=0, warm_bytes=3 * MIB, on_disk=False), 0),
    ],
)
def test_a_cache_in_memory_is_set_aside(
    tmp_path: Path, cache: CacheSettings, expected: int
) -> None:
    """One on the disk is not, but for what is read of it at the start."""
    settings = settings_of(tmp_path, room=20 * MIB)
    with opened_shelf(replace(settings, cache=cache), home=tmp_path) as shelf:
        assert shelf.taken_bytes()["caches"] == expected


def test_caches_that_leave_nothing_for_models_are_refused(tmp_path: Path) -> None:
    """At the start, with what to change."""
    settings = replace(settings_of(tmp_path, room=20 * MIB), cache=CacheSettings())

    with (
        pytest.raises(InputError, match="lower exact_bytes, warm_bytes"),
        opened_shelf(settings, home=tmp_path),
    ):
        pass
