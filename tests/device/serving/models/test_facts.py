"""What is known of a bundle before it is opened."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.device.test_opening import make_bundle

from onhand.core.errors import BundleCorrupt, EngineUnavailable, InputError
from onhand.core.manifest import render_manifest
from onhand.device.sampling import Sampling
from onhand.device.serving.models.facts import bundle_at, read_facts, stamp_of
from onhand.device.serving.settings import ModelSettings


def given(root: Path, **more: object) -> ModelSettings:
    return ModelSettings(bundle=str(root), **more)  # type: ignore[arg-type] # its fields


def test_facts_come_from_the_manifest(tmp_path: Path) -> None:
    """Name, variants, engine and context; an answer depends on more than the bundle."""
    root = make_bundle(tmp_path / "a").root
    facts = read_facts(given(root))
    other = read_facts(given(root, name="mine", context=32), variant="other")

    assert (facts.name, facts.variant, facts.variants) == ("toy", "float", ("float", "other"))
    assert (facts.engine_name, facts.context, facts.task) == ("reference", 64, "text-generation")
    assert facts.usual == Sampling()
    assert not facts.is_network
    assert (other.name, other.variant, other.context) == ("mine", "other", 32)
    assert other.settings.variant == "other"
    assert other.fingerprint != facts.fingerprint
    assert other.bundle_sha256 == facts.bundle_sha256


def test_the_makers_sampling_is_used_if_it_is_theirs(tmp_path: Path) -> None:
    """A file that is not what the manifest says is refused before it is parsed."""
    suggested = {"do_sample": True, "temperature": 0.5, "top_k": 7}
    root = make_bundle(tmp_path / "a", generation_config_json=suggested).root
    assert read_facts(given(root)).usual == Sampling(temperature=0.5, top_k=7)

    (root / "generation_config.json").write_text('{"do_sample": true, "temperature": 2.0}')
    with pytest.raises(BundleCorrupt, match="not what the manifest says"):
        read_facts(given(root))


def test_a_context_is_halved_until_it_fits(tmp_path: Path) -> None:
    """Beside the weights, and no further than to the least."""
    bundle = make_bundle(tmp_path / "a")
    longer = replace(bundle.manifest, model=replace(bundle.manifest.decoder, context=1000))
    (bundle.root / "manifest.json").write_bytes(render_manifest(longer))
    whole = read_facts(given(bundle.root))
    room = whole.footprint.idle_bytes
    each = whole.footprint.token_bytes

    def fitting(n_tokens: int) -> int:
        return read_facts(given(bundle.root), total_bytes=room + n_tokens * each).context

    assert whole.context == 1000
    assert [fitting(n) for n in (1000, 999, 400, 249, 0)] == [1000, 500, 250, 125, 64]
    assert read_facts(given(bundle.root, context=300), total_bytes=room + 200 * each).context == 150


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"variant": "int4"}, InputError, "no variant 'int4'"),
        ({"engine": "native"}, EngineUnavailable, "no engine can run"),
        ({"engine": "abacus"}, InputError, "abacus"),
    ],
)
def test_what_cannot_be_run_is_refused(
    more: dict[str, str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    """Before anything is opened."""
    root = make_bundle(tmp_path / "a").root

    with pytest.raises(error, match=message):
        read_facts(given(root, **more))


def test_an_engine_that_was_passed_over_changes_the_facts(tmp_path: Path) -> None:
    """What opened it in the end counts; the same one changes nothing."""
    facts = read_facts(given(make_bundle(tmp_path / "a").root))

    assert facts.as_opened("reference") is facts
    with pytest.raises(InputError, match="abacus"):
        facts.as_opened("abacus")


@pytest.mark.parametrize("content", [b"", b"a\nb", b"\xff\xfe", b"a\x00b", b"x" * 5000])
def test_attack_a_pointer_of_garbage(content: bytes, tmp_path: Path) -> None:
    """A file that does not hold one path is refused, and has no stamp."""
    place = tmp_path / "pointer"
    place.write_bytes(content)

    with pytest.raises(InputError, match="pointer"):
        bundle_at(place)
    assert stamp_of(place) is None


def test_a_stamp_changes_with_the_bundle(tmp_path: Path) -> None:
    """And is none where there is no bundle."""
    place = tmp_path / "a"
    assert stamp_of(place) is None
    root = make_bundle(place).root
    first = stamp_of(place)
    assert first == stamp_of(place)

    root.rename(tmp_path / "b")
    make_bundle(place)
    assert stamp_of(place) not in {None, first}
