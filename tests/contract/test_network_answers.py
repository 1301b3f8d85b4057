"""What networks of whole numbers, of few bits and trained ones answer, in every engine."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.network_bundles import Drawing, Op, drawing_of, info, pack

from onhand.device.networks.base import Array, NetworkEngine
from onhand.device.networks.opening import named_engine
from onhand.device.networks.timing import random_feeds


def quantized(x: Array) -> tuple[Drawing, NDArray[np.float64]]:
    """A product of whole numbers in the QDQ form with its codes as a second output; and them."""
    rng = np.random.default_rng(1)
    weights = rng.integers(-128, 128, (6, 4, 1, 1), dtype=np.int8)
    scales = (rng.random(6) / 50 + 0.001).astype(np.float32)
    qdq = ["QuantizeLinear", "DequantizeLinear"]
    chain = ["x", "xq", "xd", "y", "yq", "yd"]
    parameters = [["x_scale", "x_zero"]] * 2 + [[]] + [["y_scale", "y_zero"]] * 2
    kinds = [*qdq, "Conv", *qdq]
    ops = [Op(kind="DequantizeLinear", inputs=["w", "w_scale", "w_zero"], outputs=["wd"],
              attributes={"axis": 0})]  # fmt: skip
    for kind, left, right, more in zip(kinds, chain, chain[1:], parameters, strict=False):
        inputs = [left, "wd"] if kind == "Conv" else [left, *more]
        ops.append(Op(kind=kind, inputs=inputs, outputs=[right]))
    drawing = Drawing(
        ops=ops,
        constants={
            "w": weights,
            "w_scale": scales,
            "w_zero": np.zeros(6, np.int8),
            "x_scale": np.array(0.03, np.float32),
            "x_zero": np.array(110, np.uint8),
            "y_scale": np.array(0.1, np.float32),
            "y_zero": np.array(128, np.uint8),
        },
        inputs=(info("x", 1, 4, 5, 5),),
        outputs=(info("yd", 1, 6, 5, 5), info("yq", 1, 6, 5, 5, dtype="uint8")),
    )
    codes = np.clip(np.rint(x.astype(np.float64) / np.float32(0.03)) + 110, 0, 255) - 110
    sums = np.einsum("mc,bchw->bmhw", weights[:, :, 0, 0].astype(np.float64), codes)
    y = sums * scales.astype(np.float64)[:, None, None] * np.float32(0.03) / np.float32(0.1)
    return drawing, np.clip(np.rint(y) + 128, 0, 255)


def test_whole_numbers_are_right_within_one(
    network_engine: NetworkEngine, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Only a sum that lies just between two codes may go either way."""
    x = rng.standard_normal((1, 4, 5, 5), dtype=np.float32) * 3
    drawing, expected = quantized(x)
    loaded = network_engine.open(pack(tmp_path / "tiny", {"int8": drawing}), threads=1)

    outputs = loaded.run({"x": x})

    codes = outputs["yq"].astype(np.float64)
    assert outputs["yq"].dtype == np.uint8
    assert np.abs(codes - expected).max() <= 1
    assert (codes != expected).mean() < 0.02
    np.testing.assert_allclose(
        outputs["yd"].astype(np.float64), (codes - 128) * np.float32(0.1), rtol=1e-6
    )


def few_bits(kind: str) -> tuple[Drawing, NDArray[np.float64]]:
    """A matrix of 4 or 8 bits that floats are multiplied with, and what it stands for."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (16, 2, 32), dtype=np.uint8)  # (N, G, group)
    scales = (rng.random((16, 2)) / 50 + 0.001).astype(np.float32)
    inputs, outputs = (info("x", 3, 64),), (info("y", 3, 16),)
    if kind == "qdq":
        signed = (codes.astype(np.int16) - 128).astype(np.int8).reshape(16, 64).T.copy()  # (K, N)
        drawing = Drawing(
            ops=[
                Op(kind="DequantizeLinear", inputs=["w", "s"], outputs=["f"],
                   attributes={"axis": 1}),
                Op(kind="MatMul", inputs=["x", "f"], outputs=["y"]),
            ],
            constants={"w": signed, "s": scales[:, 0].copy()},
            inputs=inputs,
            outputs=outputs,
        )  # fmt: skip
        return drawing, signed.astype(np.float64) * scales[:, 0]
    bits = int(kind)
    drawing = Drawing(
        ops=[Op(kind="MatMulNBits", inputs=["x", "w", "s"], outputs=["y"], domain="com.microsoft",
                attributes={"K": 64, "N": 16, "bits": bits, "block_size": 32})],
        constants={
            "w": codes if bits == 8 else codes[..., ::2] & 15 | codes[..., 1::2] << 4,
            "s": scales.reshape(-1),
        },
        inputs=inputs,
        outputs=outputs,
        domains={"com.microsoft": 1},
    )  # fmt: skip
    centred = (codes & (2**bits - 1)).astype(np.float64) - 2 ** (bits - 1)
    return drawing, (centred * scales[..., None]).reshape(16, 64).T


@pytest.mark.parametrize("kind", ["qdq", "8", "4"])
@pytest.mark.parametrize("level", [0, 4])
def test_weights_of_few_bits_are_multiplied_as_the_variant_says(
    network_engine: NetworkEngine, tmp_path: Path, rng: np.random.Generator, kind: str, level: int
) -> None:
    """In float32 at level 0; at level 4 an engine may round the other side to int8."""
    drawing, matrix = few_bits(kind)
    bundle = pack(tmp_path / "tiny", {"v": drawing}, accuracy_level=level)
    x = rng.standard_normal((3, 64), dtype=np.float32)

    found = network_engine.open(bundle, threads=1).run({"x": x})["y"].astype(np.float64)

    expected = x.astype(np.float64) @ matrix
    bound = 1e-5 if level == 0 else 0.02
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


def test_a_real_network_answers_alike(
    network_engine: NetworkEngine, assets: Path, tmp_path: Path
) -> None:
    """The scores of a trained one are ONNX Runtime's, but for rounding."""
    path = assets / "vision-imagenet-onnx-derived" / "mobilenet_v1_0.25_128_qat_dequant_fp32.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the real models")
    bundle = pack(tmp_path / "mobilenet", {"fp32": drawing_of(path)})
    feeds = random_feeds(bundle.manifest.network)
    expected = named_engine("onnx").open(bundle, threads=1).run(feeds)

    found = network_engine.open(bundle, threads=1).run(feeds)

    for name, scores in expected.items():
        theirs = scores.astype(np.float64)
        spread = theirs.max() - theirs.min()
        assert np.abs(found[name].astype(np.float64) - theirs).max() < 1e-4 * spread
