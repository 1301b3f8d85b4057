"""What was learned leaves as an adapter, and an adapter becomes a version."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.adapters import lora_factors, write_adapter
from tests.device.learning.bundles import write_tensors
from tests.device.test_opening import make_bundle

from onhand.cli.main import main
from onhand.core.adapter import Pairs, read_adapter
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson, Trainable, render_lesson
from onhand.device.learning.adapters import (
    check_of_original,
    export_adapter,
    fit_adapter,
)
from onhand.device.learning.importing import Judges, import_learned
from onhand.device.learning.in_use import learned_adapter, open_versions
from onhand.device.learning.verdict import Verdict

R = 2
UNJUDGED = Judges(is_waived=True)
SHAPES = {"layers.0.qkv": (12, 4), "layers.0.out": (4, 4)}
Q, V, OUT = (f"model.layers.0.self_attn.{part}_proj" for part in "qvo")


def lesson() -> Lesson:
    """Two matrices of the toy decoder, alpha / rank of 4."""
    return Lesson(
        kind="lora",
        feeds="tokens",
        variant="float",
        graph="learn.onnx",
        trunk=None,
        start="learn.safetensors",
        trainables={
            f"{name}.{part}": Trainable(shape=shape, tensor=name, part=part)
            for name, (n, k) in SHAPES.items()
            for part, shape in {"lora_A": (R, k), "lora_B": (n, R)}.items()
        },
        alpha=8.0,
    )


def starts(lesson: Lesson) -> dict[str, FloatArray]:
    return {
        name: (np.ones if made.part == "lora_A" else np.zeros)(made.shape, dtype=np.float32)
        for name, made in lesson.trainables.items()
    }


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The toy language model with a lesson, whose graph nobody runs."""
    start = tmp_path / "start"
    write_tensors(start, starts(lesson()))
    return make_bundle(
        tmp_path / "bundle",
        learn_json=render_lesson(lesson()),
        learn_onnx=b"",
        learn_safetensors=start.read_bytes(),
    )


def learn(bundle: Bundle, home: Path, seed: int = 0) -> dict[str, FloatArray]:
    """A version of random values is in use; quarters, so that no sum of them is rounded."""
    random = np.random.default_rng(seed)
    versions = open_versions(bundle.root, home)
    start = starts(versions.lesson)
    values = {
        name: (random.integers(-8, 9, value.shape) / 4).astype(np.float32)
        for name, value in start.items()
    }
    made = versions.propose(
        values,
        start=start,
        parent=0,
        method="sgd",
        counts={},
        verdict=Verdict(is_accepted=True),
    )
    versions.accept(made.number)
    return values


def same(found: Pairs, expected: Pairs, *, rtol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, (first, second) in expected.items():
        delta = second @ first
        ours = found[name][1] @ found[name][0]
        np.testing.assert_allclose(ours, delta, rtol=rtol, atol=rtol * np.abs(delta).max())


def adapter_in_use(bundle: Bundle, home: Path) -> Pairs:
    version = open_versions(bundle.root, home).current().version
    assert version is not None
    return learned_adapter(bundle, home, version).pairs


def test_a_version_leaves_as_an_adapter(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """It adds what the version adds, under the names of the original, with its own alpha."""
    learn(bundle, home)

    made = export_adapter(bundle.root, tmp_path / "out", home=home)

    same(
        read_adapter(tmp_path / "out", bundle.manifest.decoder).pairs, adapter_in_use(bundle, home)
    )
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"]) == (R, 8.0)
    assert (made.version, made.matrices, made.modules, made.rank) == (1, 2, 4, R)


def test_what_left_comes_back_as_it_was(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """Query, key and value share their A: the rank stays, and every value is the same."""
    values = learn(bundle, home)
    export_adapter(bundle.root, tmp_path / "out", home=home)

    version = import_learned(bundle.root, tmp_path / "out", UNJUDGED, home=home).version

    versions = open_versions(bundle.root, home)
    assert (version.number, version.parent, version.method) == (2, 1, "imported")
    assert versions.current().number == 2
    for name, value in versions.values(version).items():
        np.testing.assert_array_equal(value, values[name])


def test_a_lower_rank_leaves_room_to_learn_on(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """The rest of A is as at the start, the rest of B adds nothing."""
    place = write_adapter(tmp_path / "a", lora_factors({OUT: (4, 4)}, rank=1), {"r": 1})

    import_learned(bundle.root, place, UNJUDGED, home=home)

    same(adapter_in_use(bundle, home), read_adapter(place, bundle.manifest.decoder).pairs)
    versions = open_versions(bundle.root, home)
    version = versions.current().version
    assert version is not None
    values = versions.values(version)
    np.testing.assert_array_equal(values["layers.0.out.lora_A"][1], np.ones(4, np.float32))
    assert not values["layers.0.out.lora_B"][:, 1].any()


def test_parts_of_one_rank_each_fit_if_their_sum_does(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """Query and value of rank 1 are rank 2 of the joined matrix."""
    place = write_adapter(
        tmp_path / "a",
        lora_factors({Q: (4, 4), V: (4, 4)}, rank=1),
        {"r": 1, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"]},
    )

    import_learned(bundle.root, place, UNJUDGED, home=home)

    same(adapter_in_use(bundle, home), read_adapter(place, bundle.manifest.decoder).pairs)


def test_a_product_of_low_rank_fits_whatever_its_factors_are(bundle: Bundle) -> None:
    """Three rows of A, of which one is the sum of the others."""
    random = np.random.default_rng(3)
    two = random.normal(size=(2, 4)).astype(np.float32)
    right = np.concatenate([two, two.sum(0, keepdims=True)])
    left = random.normal(size=(4, 3)).astype(np.float32)
    pairs = {"layers.0.out": (right, left)}

    values = fit_adapter(
        pairs, lesson(), starts(lesson()), decoder=bundle.manifest.decoder, where="a"
    )

    found = 4 * values["layers.0.out.lora_B"] @ values["layers.0.out.lora_A"]
    np.testing.assert_allclose(found, left @ right, rtol=1e-5, atol=1e-5)


def test_a_higher_rank_is_refused(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """With the rank that would do; nothing is kept."""
    place = write_adapter(tmp_path / "a", lora_factors({OUT: (4, 4)}, rank=3), {"r": 3})

    with pytest.raises(InputError, match=r"of rank 3, the bundle learns rank 2.*rank=3"):
        import_learned(bundle.root, place, UNJUDGED, home=home)
    assert open_versions(bundle.root, home).list_versions() == ()


def test_what_is_not_learned_is_refused(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """The matrix is named."""
    place = write_adapter(
        tmp_path / "a", lora_factors({"model.layers.0.mlp.down_proj": (4, 4)}, rank=1), {"r": 1}
    )

    with pytest.raises(InputError, match=r"adds to layers\.0\.down, which this bundle"):
        import_learned(bundle.root, place, UNJUDGED, home=home)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"recipe": {"int4": {"pass": "quantize", "method": "awq+gptq"}}}, "scaled the inputs"),
        ({"recipe": {}, "shaping": [{"pass": "prune"}]}, "changed its shape"),
    ],
)
def test_a_bundle_of_other_matrices_is_refused(
    bundle: Bundle, made: dict[str, object], sentence: str
) -> None:
    """What adds to them would add something else to the original's."""
    other = replace(bundle, manifest=replace(bundle.manifest, provenance=made))

    with pytest.raises(InputError, match=sentence):
        check_of_original(other)
    check_of_original(bundle)


def test_nothing_learned_is_nothing_to_write(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """And no folder is left."""
    with pytest.raises(InputError, match="nothing learned"):
        export_adapter(bundle.root, tmp_path / "out", home=home)
    assert not (tmp_path / "out").exists()


def test_the_commands(
    bundle: Bundle, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out by export, in by versions, which says that no gate judged it."""
    learn(bundle, home)
    out = tmp_path / "out"

    assert main(["export", str(bundle.root), "--to", "peft", "-o", str(out)]) == 0
    assert "matrices   2, as 4 of the original, rank 2" in capsys.readouterr().out
    assert main(["versions", str(bundle.root), "--import", str(out), "--unjudged"]) == 0
    said = capsys.readouterr()
    assert "not judged" in said.out
    assert "is version 2, and in use; no gate judged it" in said.err
    again = ["export", str(bundle.root), "--to", "peft", "-o", f"{out}-1", "--version", "1"]
    assert main([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "peft", "--variant", "int4"], "--variant: what was learned is one adapter"),
        (["--to", "gguf", "--version", "1"], "--version: gguf takes the bundle as it was built"),
    ],
)
def test_options_of_another_format_are_refused(
    tmp_path: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read."""
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "o"), *options]) == 2
    assert sentence in capsys.readouterr().err
