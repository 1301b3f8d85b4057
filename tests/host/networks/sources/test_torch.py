"""Networks from PyTorch compute what their modules compute."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.host.networks.graphs import Drawing, computed, ops
from typing_extensions import override

from onhand.core.bundle import sha256_of
from onhand.core.errors import SourceError
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.sources.torch import TorchSource, model_from_torch
from onhand.host.networks.sources.torch_archive import check_archive
from onhand.host.networks.sources.torch_attention import plain_attention


class Pictures(torch.nn.Module):
    """Convolution, norm, a pool written as a mean, dropout and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.drop = torch.nn.Dropout(0.5)
        self.dense = torch.nn.Linear(4, 2)

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (B, 2) of pictures (B, 3, H, W)."""
        x = torch.nn.functional.relu6(self.norm(self.conv(x)))
        scores: torch.Tensor = self.dense(self.drop(x.mean((2, 3))))
        return scores


@pytest.fixture(scope="module")
def module() -> Pictures:
    """A module whose norm has seen numbers, left in training."""
    torch.manual_seed(3)
    made = Pictures()
    made(torch.randn(8, 3, 6, 6))
    made.norm.eval()
    return made


@pytest.fixture(scope="module")
def model(module: Pictures) -> NetworkModel:
    """The model of it."""
    return model_from_torch(
        module, [torch.randn(1, 3, 8, 8)], name="net", input_names=["x"], output_names=["scores"]
    )


@pytest.mark.slow
def test_a_module_becomes_a_plain_graph(module: Pictures, model: NetworkModel) -> None:
    """The batch is open though the example had one picture; the norm is in the convolution."""
    x = torch.randn(3, 3, 8, 8)
    # A module in training would answer otherwise, and its parts stay as they were.
    assert module.training
    assert not module.norm.training
    module.eval()
    with torch.no_grad():
        expected = module(x).numpy()
    module.train()
    module.norm.eval()

    np.testing.assert_allclose(
        computed(model.graph, {"x": x.numpy()})[0], expected, rtol=1e-4, atol=1e-5
    )
    assert model.graph.inputs[0].shape == ("batch", 3, 8, 8)
    assert model.graph.outputs[0].shape == ("batch", 2)
    assert ops(model.graph) == ["Conv", "Clip", "GlobalAveragePool", "Flatten", "Gemm"]
    assert (model.weight_bits, model.notes) == (32, ())
    assert model.source_bytes == sum(
        t.numel() * t.element_size() for t in module.state_dict().values()
    )


class Attention(torch.nn.Module):
    """Attention with a mask."""

    @override
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, 8) and (B, T) of 0 and 1 to (B, T, 8)."""
        heads = x.view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
        seen = mask[:, None, None, :] > 0
        made = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=seen)
        return made.transpose(1, 2).reshape(x.shape)


@pytest.mark.slow
def test_attention_has_no_guard(rng: np.random.Generator) -> None:
    """Both sizes open; the shapes are numbers; the same where a row sees anything."""
    x = torch.as_tensor(rng.standard_normal((2, 5, 8)).astype(np.float32))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])

    model = model_from_torch(
        Attention(), [x, mask], name="a", input_names=["x", "mask"], open_axes=[(0, 1), (0, 1)]
    )

    names = ops(model.graph)
    assert "IsNaN" not in names
    assert names.count("Where") == 1
    assert "Shape" not in names
    assert "spreads evenly" in model.notes[0]
    longer = np.concatenate([x.numpy()] * 2, axis=1)
    seen = np.concatenate([mask.numpy(), np.zeros_like(mask.numpy())], axis=1)
    found = computed(model.graph, {"x": longer, "mask": seen})[0]
    np.testing.assert_allclose(found[:, :5], Attention()(x, mask).numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_saved_program_is_read(module: Pictures, tmp_path: Path) -> None:
    """A `.pt2` file, with its batch open."""
    module.eval()
    path = tmp_path / "net.pt2"
    x = torch.randn(2, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},)
        )
        torch.export.save(program, path)
    with torch.no_grad():
        expected = module(x).numpy()
    module.train()
    module.norm.eval()

    source = TorchSource()
    assert source.why_not(str(path)) is None
    model = source.load(str(path), task="features")

    name = model.graph.inputs[0].name
    found = computed(model.graph, {name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert model.graph.inputs[0].shape[0] == "batch"
    assert (model.name, model.sha256) == ("net", sha256_of(path))


@pytest.mark.slow
def test_what_cannot_be_exported_is_said() -> None:
    """A module that looks at its numbers has no graph."""

    class Looks(torch.nn.Module):
        @override
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(SourceError, match="net: torch cannot export it"):
        model_from_torch(Looks(), [torch.ones(2, 2)], name="net")


def test_a_guard_elsewhere_stays(rng: np.random.Generator) -> None:
    """What is no attention keeps what it does with what is no number."""
    d = Drawing(x=("B", 4))
    root = d.node("Sqrt", "x")
    graph = d.graph(d.node("Where", d.node("IsNaN", root), d.constant(0), root))

    assert plain_attention(graph) == (graph, 0)


def archive(
    path: Path,
    *,
    model: object = None,
    weights: object = None,
    sample: Callable[[], bytes] | None = None,
    extra: str = "",
) -> Path:
    """A `.pt2` file as far as the check reads it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/models/model.json", json.dumps(model or {}))
        file.writestr("m/data/weights/model_weights_config.json", json.dumps(weights or {}))
        if sample is not None:
            file.writestr("m/data/sample_inputs/model.pt", sample())
        if extra:
            file.writestr(extra, b"")
    return path


class Evil:
    """What would run when it is unpickled."""

    @override
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("ran",))


def saved(value: object) -> Callable[[], bytes]:
    """What torch writes of a value."""

    def write() -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    return write


def calls(target: str) -> dict[str, object]:
    """A description of one node."""
    return {"graph_module": {"graph": {"nodes": [{"target": target}]}}}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"weights": {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}}, "pickled"),
        ({"sample": saved(((Evil(),), {}))}, "no plain tensors"),
        ({"sample": lambda: pickle.dumps(Evil())}, "no plain tensors"),
        ({"extra": "m/data/aotinductor/model/code.so"}, "compiled code"),
        ({"extra": "m/data/constants/custom_obj_0"}, "pickled objects"),
        ({"extra": "../elsewhere"}, "not loaded"),
        ({"model": calls("torch.hub.load")}, "only ATen's operators"),
        ({"model": calls("_operator.attrgetter")}, "only ATen's operators"),
        ({"model": calls("torch.ops.aten.from_file.default")}, "only ATen's operators"),
        ({"model": calls("#custom.thing")}, "only ATen's operators"),
        ({"model": {"x": {"expr_str": "__import__('os').getpid()"}}}, "no plain sum"),
        ({"model": {"guards_code": ["open('f').read()"]}}, "no plain sum"),
    ],
)
def test_attack_code_in_an_archive(
    parts: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before torch loads anything of it."""
    path = archive(tmp_path / "net.pt2", **parts)  # type: ignore[arg-type]

    with pytest.raises(SourceError, match=message):
        TorchSource().load(str(path), task="features")
    assert "ran" not in capsys.readouterr().out


def test_plain_archives_pass(tmp_path: Path) -> None:
    """Tensors, ATen's operators, and sizes as sums of sizes."""
    told = {**calls("torch.ops.aten.relu.default"), "guards_code": ["L['x'].size()[0] <= 64"],
            "a": {"expr_str": "Symbol('s31', positive=True, integer=True)"},
            "b": {"expr_str": "Max(1, 2*s0 + FloorDiv(s1, 4))"}}  # fmt: skip

    check_archive(archive(tmp_path / "m.pt2", model=told, sample=saved(((torch.ones(1),), {}))))


def test_what_is_no_program(tmp_path: Path) -> None:
    """Weights alone, a cut archive, nothing."""
    source = TorchSource()
    weights, cut = tmp_path / "w.pth", tmp_path / "c.pt2"
    weights.write_bytes(saved({"w": torch.ones(1)})())
    cut.write_bytes(archive(tmp_path / "whole.pt2").read_bytes()[:60])

    assert "weights alone" in str(source.why_not(str(weights)))
    assert "no file" in str(source.why_not(str(tmp_path)))
    with pytest.raises(SourceError, match=r"no \.pt2 file"):
        source.load(str(cut), task="features")
    with pytest.raises(SourceError, match="no such file"):
        source.load(str(tmp_path / "missing.pt2"), task="features")
