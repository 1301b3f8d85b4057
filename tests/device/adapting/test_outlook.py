"""What would run a bundle, here and elsewhere. Accelerators are a profile's, not a GPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.network_bundles import classifier, pack

from onhand import native
from onhand.core.bundle import read_bundle
from onhand.core.profile_parts import Provider
from onhand.device import opening
from onhand.device.adapting.outlook import Outlook, look_ahead, look_here, predicted_kernels
from onhand.device.known_devices import known_device, known_devices
from onhand.device.networks.opening import open_adapted
from onhand.device.probe import current_profile

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"


def chosen(outlook: Outlook) -> str:
    """The engine that is taken."""
    (taken,) = [way.engine for way in outlook.ways if way.is_chosen]
    return taken


@pytest.mark.parametrize(
    ("machine", "sets", "kernels"),
    [
        ("x86_64", "avx2 fma f16c", "avx2"),
        ("x86_64", "avx2 fma f16c avx_vnni", "avx2-vnni"),
        ("AMD64", "avx2 fma f16c avx512f avx512bw avx512vl avx512_vnni", "avx512"),
        ("x86_64", "avx2 fma f16c avx512f", "avx2"),
        ("x86_64", "avx512f avx512bw avx512vl avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16",
         "amx"),
        ("x86_64", "sse4_2", "portable"),
        ("aarch64", "neon", "portable"),
        ("aarch64", "neon dotprod", "neon"),
        ("arm64", "neon dotprod i8mm", "neon-i8mm"),
    ],
)  # fmt: skip
def test_kernels_follow_from_instructions(machine: str, sets: str, kernels: str) -> None:
    """As the native part's own rule takes them."""
    profile = replace(
        current_profile(), machine=machine, instruction_sets=tuple(sorted(sets.split()))
    )

    assert predicted_kernels(profile) == kernels


def test_what_is_predicted_of_this_processor_is_what_it_takes() -> None:
    """The two rules are one, as far as this processor shows."""
    if native.module is None:
        pytest.skip(str(native.missing))

    assert predicted_kernels(current_profile()) == native.module.instruction_sets()[0]


def test_before_the_first_opening_the_order_of_preference_counts(home: Path) -> None:
    """And it is said that the ways will be timed; afterwards, what was found."""
    bundle = read_bundle(TINY)
    variant = bundle.manifest.default_variant

    before = look_here(bundle, variant, current_profile(), home=home)
    with opening.open(TINY, home=home) as session:
        engine = session.engine_name
    after = look_here(bundle, variant, current_profile(), home=home)

    assert "nothing was timed yet" in before.notes[0]
    assert chosen(before) == "onnx"
    assert (chosen(after), after.notes, after.is_predicted) == (engine, (), False)
    assert "tokens/s" in after.ways[0].why
    assert after.ways[0].kernels == "ONNX Runtime, CPUExecutionProvider"
    assert after.ways[0].precision == "weights of 4, 8 bits, float32 inputs"
    why = {way.engine: way.why for way in after.ways}
    assert "slow" in why["reference"]
    assert "accuracy level 0" in why["native"] or native.module is None


def test_a_network_has_an_outlook_too(tmp_path: Path, home: Path) -> None:
    """The same table, of its engines."""
    bundle = pack(tmp_path / "tiny", {"fp32": classifier(np.random.default_rng(0))})

    before = look_here(bundle, "fp32", current_profile(), home=home)
    opened = open_adapted(bundle, home=home)
    after = look_here(bundle, "fp32", current_profile(), home=home)

    assert chosen(before) == "onnx"
    assert chosen(after) == opened.engine
    if current_profile().usable_threads > 1:
        assert "ms, timed here" in after.ways[0].why
        assert after.ways[0].threads == opened.threads


@pytest.mark.parametrize("name", known_devices())
def test_other_devices_are_foretold(name: str) -> None:
    """Of every device that we know: marked as foretold, with that device's threads."""
    bundle, profile = read_bundle(TINY), known_device(name)

    outlook = look_ahead(bundle, bundle.manifest.default_variant, profile)

    assert (outlook.device, outlook.is_predicted) == (profile.name, True)
    assert outlook.ways[0].threads == profile.usable_threads
    assert "foretold from the device's profile" in outlook.notes[0]


def test_accelerators_of_another_device_are_named() -> None:
    """They are able; whether they are quicker, only the device can say."""
    bundle = read_bundle(TINY)
    cuda = Provider(name="CUDAExecutionProvider", package="onnxruntime-gpu", is_usable=True)
    profile = replace(current_profile(), providers=(cuda,))

    outlook = look_ahead(bundle, bundle.manifest.default_variant, profile)

    (way,) = [one for one in outlook.ways if one.engine == "onnx:cuda"]
    assert (way.is_chosen, way.kernels) == (False, "ONNX Runtime, CUDAExecutionProvider")
    assert way.why == "able; onnx is preferred until they are timed"
