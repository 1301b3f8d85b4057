"""PyTorch as an engine. Not run on a GPU: the computation is tried on the processor.

What every engine promises is in tests/contract, where "torch:cpu" takes part.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs onhand[host]")

import torch
from tests.contract.oracle import oracle_logits
from tests.models import DECODER, VOCAB, memory_model, varied_decoder

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.progress import Quiet
from onhand.core.quantized import QuantTensor
from onhand.core.weights import open_weights
from onhand.device.engine_opening import able_ways, open_engine
from onhand.device.engines.named import named_engine
from onhand.device.engines.ways_engine import WaysEngine
from onhand.device.probe import current_profile
from onhand.host.calibrate import InputStatistics
from onhand.host.engines import torch_engine
from onhand.host.engines.torch_engine import TorchEngine
from onhand.host.engines.torch_matrices import TorchMatrix
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"


def made(folder: Path, decoder: Decoder, bits: int) -> Bundle:
    """A bundle of a random model."""
    model = memory_model(decoder)
    transforms = {"small": Quantize(method="rtn", bits=bits, symmetric=False)}
    return pack_bundle(
        model,
        plan_variants(decoder, transforms),
        InputStatistics(),
        folder,
        accuracy_level=0,
        provenance={"source_sha256": model.sha256},
        threads=1,
        progress=Quiet(),
    ).bundle


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_stay_codes(tmp_path: Path, bits: int) -> None:
    """On the device lie as many bytes as in the file, but for codes of 3 bits and zero points."""
    weights = open_weights(made(tmp_path, DECODER, bits), "small")
    stored = weights.stored("layers.0.qkv")
    assert isinstance(stored, QuantTensor)

    matrix = TorchMatrix(stored, torch.device("cpu"), torch.float32)

    n, k = stored.shape
    code_bytes = n * k if bits == 3 else stored.codes.nbytes
    assert matrix.n_bytes == code_bytes + stored.scales.nbytes + stored.scales.size
    np.testing.assert_allclose(matrix.rows(None).numpy(), stored.dequantize(), rtol=1e-6)
    ids = torch.tensor([3, 0])
    np.testing.assert_allclose(matrix.rows(ids).numpy(), stored.rows(np.array([3, 0])), rtol=1e-6)


def test_halves_are_near(tmp_path: Path) -> None:
    """What accelerators compute in: 11 bits of a product, through two layers."""
    bundle = made(tmp_path, varied_decoder(), 4)
    row = np.random.default_rng(3).integers(0, VOCAB, 24)
    expected = oracle_logits(open_weights(bundle, "small"), row)
    loaded = TorchEngine("cpu", half=True).open(bundle, variant="small", threads=1)

    found = loaded.score(loaded.session(), row)

    assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
    whole = TorchEngine("cpu").open(bundle, variant="small", threads=1)
    assert whole.key != loaded.key
    session, other = loaded.session(), loaded.session()
    loaded.step([(session, row)])
    other.load_state(session.save_state())
    assert len(session.save_state()) < 2 * 24 * bundle.manifest.decoder.kv_values_per_token + 99
    np.testing.assert_array_equal(
        loaded.step([(other, row[:1])]), loaded.step([(session, row[:1])])
    )


def test_many_conversations_share_a_step(tmp_path: Path) -> None:
    """Prompts and single tokens of several lengths, each as if it were alone."""
    bundle = made(tmp_path, DECODER, 4)
    loaded = TorchEngine("cpu").open(bundle, variant="small", threads=1)
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, VOCAB, n) for n in (1, 30, 1, 7)]
    together = [(loaded.session(), row) for row in rows]

    found = loaded.step(together)

    for logits, row in zip(found, rows, strict=True):
        np.testing.assert_allclose(
            logits, loaded.step([(loaded.session(), row)])[0], rtol=1e-4, atol=1e-4
        )


def test_without_an_accelerator_it_is_not_taken_unasked() -> None:
    """It says so without importing torch's whole; by name it computes on the processor."""
    bundle, profile = read_bundle(TINY), current_profile()
    variant = bundle.manifest.default_variant
    engine = named_engine("torch")

    if engine.why_not(bundle, profile, variant=variant) is None:
        pytest.skip("there is an accelerator here")

    assert "torch:cpu is slow" in str(engine.why_not(bundle, profile, variant=variant))
    with pytest.raises(EngineUnavailable, match="no accelerator that torch can use"):
        engine.open(bundle, variant=variant, threads=1)
    assert isinstance(engine, WaysEngine)
    assert engine.ways(profile) == ()
    names, reasons = able_ways(bundle, profile, variant=variant)
    assert "torch" not in names
    assert "no accelerator" in reasons["torch"]
    loaded, name, _ = open_engine(bundle, variant=variant, engine="torch:cpu", threads=1)
    loaded.close()
    assert name == "torch:cpu"
    with pytest.raises(InputError, match="no device 'tpu', but cuda, xpu, mps and cpu"):
        named_engine("torch:tpu")


@pytest.mark.parametrize(
    ("version", "is_there"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu = None\n", False),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True),
        ("cuda = None\nhip = '6.2'\n", True),
        (None, True),
    ],
)
def test_what_torch_was_built_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, is_there: bool
) -> None:
    """Its file of versions names what it has; the bus says whether there is any. Fakes, no GPU."""
    (tmp_path / "__init__.py").touch()
    if version is not None:
        (tmp_path / "version.py").write_text(version)
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    monkeypatch.setattr(torch_engine, "seen_accelerators", lambda: ("CUDAExecutionProvider",))
    monkeypatch.setattr(torch_engine, "_device_there", lambda wanted: wanted or "cuda")
    bundle = read_bundle(TINY)

    for engine in (TorchEngine(), TorchEngine("cuda")):
        reason = engine.why_not(bundle, current_profile(), variant="any")

        assert (reason is None) == is_there

    monkeypatch.setattr(torch_engine, "seen_accelerators", lambda: ())
    reason = TorchEngine("cuda").why_not(bundle, current_profile(), variant="any")
    assert "no cuda device" in str(reason)


def test_what_torch_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    """As when a device's memory is full."""
    bundle = made(tmp_path, replace(DECODER, tied=False), 4)
    loaded = TorchEngine("cpu").open(bundle, variant="small", threads=1)
    session = loaded.session()
    session.keys[0] = session.keys[0][:, :2]

    with pytest.raises(EngineError, match=r"^torch: "):
        loaded.step([(session, np.arange(9))])
