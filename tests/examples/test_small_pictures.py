"""The small pictures' network learns, goes on where it stopped, and is exported as it is."""

import io
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="trains")

from examples.small_pictures.data import SIDE, Pictures, read_zip  # noqa: E402 (needs torch)
from examples.small_pictures.network import MobileNetV2  # noqa: E402 (needs torch)
from examples.small_pictures.train import (  # noqa: E402 (needs torch)
    Run,
    accuracy,
    augmented,
    export,
    normalized,
)

SETTINGS = {"epochs": 4, "minutes": 0, "batch": 8, "rate": 0.05, "decay": 5e-4, "width": 0.1,
            "seed": 0}  # fmt: skip


def pictures(n: int) -> Pictures:
    """Dark ones and bright ones."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 2
    noise = rng.integers(0, 60, (n, SIDE, SIDE, 3))
    pixels = noise + labels[:, None, None, None] * 180
    return Pictures(pixels=pixels.astype(np.uint8), labels=labels, classes=("dark", "bright"))


def test_the_whole_network_is_that_of_the_paper() -> None:
    """Parameters of width 1: 2,223,872 below the classifier, as published ones have."""
    network = MobileNetV2(n_classes=10)

    assert sum(p.numel() for p in network.features.parameters()) == 2_223_872
    assert sum(p.numel() for p in network.classifier.parameters()) == 12_810


def test_training_computes_what_answering_does() -> None:
    """Strided convolutions are computed in another way there, to the same numbers."""
    layer = next(
        module for module in MobileNetV2(width=0.1).modules()
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1 and module.stride == (2, 2)
    )  # fmt: skip
    x = torch.randn(2, layer.in_channels, 9, 12)

    learning = layer.train()(x)
    answering = layer.eval()(x)

    torch.testing.assert_close(learning, answering)


def test_a_picture_is_moved_and_mirrored_not_changed() -> None:
    """Each visible column of the result is a column of the picture, normalized."""
    ramp = np.broadcast_to(
        np.arange(SIDE, dtype=np.uint8)[None, None, :, None], (64, SIDE, SIDE, 3)
    )
    pixels = torch.from_numpy(ramp.copy())
    known = set(normalized(pixels[:1])[0, 0, 0].tolist()) | {0.0}

    made = augmented(pixels, torch.Generator().manual_seed(0))

    assert made.shape == (64, 3, SIDE, SIDE)
    assert set(made[:, 0].flatten().tolist()) <= known
    assert not torch.equal(made[0], made[1])


def test_a_run_that_stops_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """With its momentum, its schedule and its pictures; other settings are refused."""
    data = pictures(24)
    whole = Run.start(SETTINGS, n_classes=2)
    for _ in range(2):
        whole.learn(data)
    first = Run.start(SETTINGS, n_classes=2)
    first.learn(data)
    first.save(tmp_path / "checkpoint.safetensors")
    second = Run.start(SETTINGS, n_classes=2)
    second.resume(tmp_path / "checkpoint.safetensors")
    second.learn(data)

    for name, weight in whole.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], weight, msg=name)
    with pytest.raises(ValueError, match="of a run with"):
        Run.start(SETTINGS | {"rate": 0.1}, n_classes=2).resume(tmp_path / "checkpoint.safetensors")


def test_it_learns_dark_from_bright() -> None:
    """The loss falls below that of a guess, ln 2."""
    data = pictures(32)
    run = Run.start(SETTINGS | {"epochs": 6, "batch": 16}, n_classes=2)

    losses = [run.learn(data) for _ in range(6)]

    assert losses[-1] < min(losses[0], math.log(2))
    assert run.progress() == 1


def test_accuracy_is_the_share_of_right_answers() -> None:
    """By hand: a network of brightness has all right, until one of four has another label."""
    data = pictures(4)
    sums = torch.nn.Linear(3 * SIDE * SIDE, 2, bias=False)
    with torch.no_grad():
        sums.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand_as(sums.weight))
    network = torch.nn.Sequential(torch.nn.Flatten(), sums)

    assert accuracy(network, data) == 1
    assert accuracy(network, replace(data, labels=np.array([0, 1, 0, 0]))) == 0.75


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch warns of itself
def test_what_is_exported_answers_alike(tmp_path: Path) -> None:
    """For one picture or three; the batch is open."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="compares with it")
    network = Run.start(SETTINGS, n_classes=2).network.eval()
    export(network, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")

    for n in (1, 3):
        x = torch.randn(n, 3, SIDE, SIDE)
        (found,) = session.run(["scores"], {"picture": x.numpy()})
        with torch.no_grad():
            expected = network(x).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pictures_come_out_of_a_zip_file(tmp_path: Path) -> None:
    """Sorted by class and name; another size or an empty part is refused."""
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, level in (("train/b/0.png", 9), ("train/a/1.png", 200), ("test/a/0.png", 1)):
            file = io.BytesIO()
            side = SIDE if name.startswith("train") else 8
            Image.new("RGB", (side, side), (level, level, level)).save(file, "png")
            archive.writestr(name, file.getvalue())

    found = read_zip(path, "train")

    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [0, 1]
    assert found.pixels[:, 0, 0, 0].tolist() == [200, 9]
    with pytest.raises(ValueError, match=r"\(8, 8\) pixels, must be 32 x 32"):
        read_zip(path, "test")
    with pytest.raises(ValueError, match="has no validation/class"):
        read_zip(path, "validation")
