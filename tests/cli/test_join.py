"""`onhand join`: networks and the steps around them become one network that builds take."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.networks.join_graphs import convolved, value

from onhand.cli.main import main
from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.device.networks.pictures import feed_picture
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.joining import configured
from onhand.host.networks.joining.checked import check_same, noise, pictures
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import model_bytes, read_onnx

pytest.importorskip("onnx", reason="joining needs the host's packages")

FLOAT32 = np.dtype(np.float32)
PICTURE = "picture = { height = 8, width = 8, resize = 'stretch' }"


def grid() -> Graph:
    """(1, 3, 8, 8) -> (1, 7, 2, 2): a grid of cells with two classes."""
    w = np.random.default_rng(3).normal(size=(7, 3, 4, 4)).astype(np.float32) / 4
    return Graph(
        nodes=(
            Node(op="Conv", inputs=("x", "w"), outputs=("c",), attributes={"strides": (4, 4)}),
            Node(op="Sigmoid", inputs=("c",), outputs=("y",)),
        ),
        constants={"w": w},
        inputs=(value("x", 1, 3, 8, 8),),
        outputs=(value("y", 1, 7, 2, 2),),
        opset=17,
    )


def matrix(seed: int = 0, *, op: str = "MatMul") -> Graph:
    """X (N, 4) -> y (N, 3), with a constant called as a module's weight."""
    w = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    turned = {"transB": 1} if op == "Gemm" else {}
    return Graph(
        nodes=(Node(op=op, inputs=("x", "net.head.weight"), outputs=("y",), attributes=turned),),
        constants={"net.head.weight": np.ascontiguousarray(w.T) if turned else w},
        inputs=(value("x", "N", 4),),
        outputs=(value("y", "N", 3),),
        opset=17,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks as files, in the folder where the command runs."""
    monkeypatch.chdir(tmp_path)
    graphs = {
        "a": convolved(pads=1), "b": convolved(pads=1, seed=1), "other": matrix(), "grid": grid(),
        "m": matrix(), "n": matrix(1), "g": matrix(op="Gemm"),
    }  # fmt: skip
    for name, graph in graphs.items():
        (tmp_path / f"{name}.onnx").write_bytes(model_bytes(graph))
    return tmp_path


def joined(text: str, *options: str) -> Graph:
    """What the command writes."""
    Path("c.toml").write_text(text)
    assert main(["join", "c.toml", "-o", "out.onnx", "--threads", "1", *options]) == 0
    return read_onnx(Path("out.onnx"))


def run(graph: Graph, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """What ONNX Runtime answers."""
    return GraphRunner(graph, threads=1).run(dict(feeds))


def test_a_picture_and_an_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pixels go in as one example, the best classes come out."""
    answer = "answer = { what = 'top-k', k = 2 }"
    made = joined(f"join = 'network'\nnetwork = 'a.onnx'\n{PICTURE}\n{answer}\n", "--json")
    said = json.loads(capsys.readouterr().out)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    feed = PictureFeed(height=8, width=8, resize="stretch")
    fed = feed_picture(pixels, feed, ArrayInfo(name="x", dtype="float32", shape=()))
    scores = run(read_onnx(folder / "a.onnx"), x=fed)["y"][0]
    found = run(made, pixels=pixels[None])

    assert [one.shape for one in made.inputs] == [(1, None, None, 3)]
    np.testing.assert_array_equal(found["classes"][0], np.argsort(-scores)[:2])
    np.testing.assert_allclose(found["scores"][0], np.sort(scores)[::-1][:2], rtol=1e-4)
    assert said["path"] == "out.onnx"
    assert 0 <= said["difference"] < 1e-3


def test_a_detector_and_a_classifier(folder: Path) -> None:
    """Boxes first, then what each is; the file can be built from."""
    made = joined(f"""
        join = 'cascade'
        [detector]
        network = 'grid.onnx'
        cells = true
        {PICTURE}
        answer = {{ what = 'nms', least_score = 0.1 }}
        [classifier]
        network = 'a.onnx'
        {PICTURE}
    """)
    found = run(made, pixels=pictures(PictureFeed(height=8, width=8), (20, 30))[0][None])

    assert made.output_names() == ("boxes", "scores", "classes", "classifier.y")
    assert len(found["classifier.y"]) == len(found["boxes"]) > 0
    out = ["build", "out.onnx", "--task", "features", "--bits", "32", "--no-original"]
    assert main([*out, "-o", "missing/bundle"]) == 2  # read, and refused for its place alone


def test_heads_share_what_they_have(folder: Path) -> None:
    """A trunk is stored once, and inputs of other names are one."""
    first = convolved(pads=1)
    renamed = replace(
        first.renamed({"x": "pixels"}), inputs=(replace(first.inputs[0], name="pixels"),)
    )
    (folder / "twin.onnx").write_bytes(model_bytes(renamed))
    made = joined("join = 'heads'\nnetworks = ['a.onnx', 'twin.onnx', 'b.onnx']\n")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    found = run(made, x=x)

    assert made.output_names() == ("y", "twin.y", "b.y")
    assert len([node for node in made.nodes if node.op == "Conv"]) == 2
    np.testing.assert_array_equal(found["y"], found["twin.y"])
    np.testing.assert_allclose(found["b.y"], run(convolved(pads=1, seed=1), x=x)["y"], rtol=1e-5)


@pytest.mark.parametrize("way", ["options", "file"])
def test_an_average(folder: Path, way: str) -> None:
    """Weights of one form, in the shares asked for."""
    if way == "file":
        made = joined("join = 'average'\nnetworks = ['m.onnx', 'n.onnx']\nweights = [3, 1]\n")
    else:
        line = ["join", "--average", "m.onnx", "n.onnx", "--weights", "3,1", "-o", "out.onnx"]
        assert main(line) == 0
        made = read_onnx(folder / "out.onnx")
    a, b = (matrix(seed).constants["net.head.weight"] for seed in (0, 1))

    np.testing.assert_allclose(made.constants["net.head.weight"], (3 * a + b) / 4, rtol=1e-6)


def test_examples_choose_an_average(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not help stays out, and the score is said."""
    x = np.random.default_rng(5).normal(size=(40, 4)).astype(np.float32)
    labels = run(matrix(), x=x)["y"].argmax(axis=1)
    np.savez("data.npz", x=x, labels=labels)
    line = ["join", "--average", "n.onnx", "m.onnx", "-o", "out.onnx", "--data", "data.npz"]

    assert main([*line, "--task", "text-classification"]) == 0
    assert "the average of m.onnx names 100.00% of the examples" in capsys.readouterr().err
    np.savez("data.npz", x=x)
    (folder / "out.onnx").unlink()
    capsys.readouterr()
    assert main([*line, "--task", "text-classification"]) == 2
    assert "data.npz: has no labels" in capsys.readouterr().err


def adapter(place: Path, *, rank: int = 2, up_rank: int = 2) -> None:
    """Write an adapter of a matrix (3, 4) in PEFT's layout, scaled by 4 / rank."""
    place.mkdir()
    module = "base_model.model.net.head"
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["head"]}
    (place / "adapter_config.json").write_text(json.dumps(config))
    down = np.arange(rank * 4, dtype=np.float32).reshape(rank, 4)
    up = np.arange(3 * up_rank, dtype=np.float32).reshape(3, up_rank) / 8
    arrays: dict[str, np.ndarray] = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    specs = {k: TensorSpec(dtype="F32", shape=v.shape, offset=0) for k, v in arrays.items()}
    with SafetensorsWriter(place / "adapter_model.safetensors", specs) as writer:
        for name, array in arrays.items():
            writer.write(name, array)
        writer.close()


@pytest.mark.parametrize("network", ["m", "g"])
def test_an_adapter_is_merged(folder: Path, network: str) -> None:
    """W + alpha / r B A, whichever way round the weight is stored."""
    adapter(folder / "lora")
    made = joined(f"join = 'lora'\nnetwork = '{network}.onnx'\nadapter = 'lora'\n")
    down = np.arange(8, dtype=np.float32).reshape(2, 4)
    up = np.arange(6, dtype=np.float32).reshape(3, 2) / 8
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    plain = run(matrix(), x=x)["y"]

    np.testing.assert_allclose(run(made, x=x)["y"], plain + x @ (2 * up @ down).T, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("join = 'both'", "join is 'both', must be one of network, heads, cascade"),
        ("join = 'heads'\nnet = 1", "unknown key 'net'"),
        ("join = 'network'", "network is missing"),
        ("join = 'network'\nnetwork = 'no.onnx'\ncells = true", "no.onnx"),
        ("join = 'network'\nnetwork = 'a.onnx'", "nothing to join"),
        ("join = 'network'\nnetwork = 'a.onnx'\nanswer = { k = 2 }", "what is missing"),
        ("join = 'network'\nnetwork = 'a.onnx'\nanswer = { what = 'best' }", "no such step"),
        ("join = 'network'\nnetwork = 'a.onnx'\nanswer = { what = 'top-k', k = 0 }", "k is 0"),
        ("join = 'network'\nnetwork = 'a.onnx'\nanswer = { what = 'nms', least_score = 2 }",
         "least_score is 2, must be from 0 to 1"),
        ("join = 'network'\nnetwork = 'a.onnx'\npicture = { height = 9, width = 8 }", "the feed"),
        ("join = 'network'\nnetwork = 'a.onnx'\npicture = { height = 8 }", "width"),
        ("join = 'network'\nnetwork = 'a.onnx'\npicture = { height = 8, width = 8, size = 3 }",
         "size is 3, must be height and width"),
        ("join = 'network'\nnetwork = 'a.onnx'\ncells = 1", "cells is 1, must be true or false"),
        ("join = 'network'\nnetwork = 'a.onnx'\ncells = true", "must be (1, 5 + C, h, w)"),
        ("join = 'heads'\nnetworks = 'a.onnx'", "must be files or folders"),
        ("join = 'heads'\nnetworks = ['a.onnx', 'm.onnx']", "has other inputs than a"),
        ("join = 'heads'\nnetworks = ['a.onnx', 'b.onnx']\nnames = 'x'", "a list of names"),
        ("join = 'average'\nnetworks = ['a.onnx']", "needs two networks or more, 1 given"),
        ("join = 'average'\nnetworks = ['a.onnx', 'm.onnx']", "not of the first one's form"),
        ("join = 'average'\nnetworks = ['m.onnx', 'n.onnx']\nweights = ['a']", "list of numbers"),
        ("join = 'average'\nnetworks = ['m.onnx', 'n.onnx']\nweights = [1]", "must be 2 numbers"),
        ("join = 'cascade'", "detector: must be a JSON object"),
        ("join = 'cascade'\n[detector]\nnetwork = 'a.onnx'\n[classifier]\nnetwork = 'a.onnx'",
         "needs [detector.picture] and [classifier.picture]"),
        ("join = 'lora'\nnetwork = 'm.onnx'", "adapter is None, must be a folder"),
        ("join = 'lora'\nnetwork = 'm.onnx'\nadapter = 'none'", "cannot be read"),
        ("join = 'lora'\nnetwork = 'a.onnx'\nadapter = 'lora'", "is no constant of the network"),
        ("join = 'lora'\nnetwork = 'm.onnx'\nadapter = 'wide'", "(N, R), (R, K)"),
        ("join", "c.toml: cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_hold(
    text: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code of wrong input or source, and nothing is written."""
    adapter(folder / "lora")
    adapter(folder / "wide", rank=2, up_rank=3)
    (folder / "c.toml").write_text(text)

    assert main(["join", "c.toml", "-o", "out.onnx", "--threads", "1"]) in {1, 2}
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert sorted(p.name for p in folder.glob("*out*")) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("join c.toml", "where to? give -o OUT.onnx"),
        ("join a.onnx b.onnx -o out.onnx", "2 sources: give one CONFIG.toml, or --average"),
        ("join c.toml --weights 1,2 -o out.onnx", "--weights is for --average"),
        ("join --average m.onnx n.onnx --weights a -o out.onnx", "--weights is 'a', must be"),
        ("join c.toml --data d -o out.onnx", "--data is for --average; leave it out"),
        ("join --average m.onnx n.onnx --data d -o out.onnx", "need --data and --task"),
        ("join --average m.onnx n.onnx --data d --task features -o out.onnx", "--task is features"),
        (
            "join --average m.onnx n.onnx --data d --task text-classification --weights 1,1 "
            "-o out.onnx",
            "leave weights out",
        ),
        ("join --average m.onnx n.onnx -o out.bin", "is not called .onnx"),
        ("join --average m.onnx n.onnx -o m.onnx", "exists already"),
        ("join --average m.onnx n.onnx -o no/out.onnx", "is not a folder"),
    ],
)
def test_options_that_do_not_go_together(
    line: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2."""
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err


def test_other_answers_are_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A join that changes what a network says is refused, and leaves nothing behind."""

    def broken(graphs: list[Graph], *, names: list[str]) -> Graph:
        first = graphs[0]
        w = first.constants["w"] * np.float32(1.01)
        return replace(first, constants={**first.constants, "w": w})

    monkeypatch.setattr(configured, "share_trunk", broken)
    (folder / "c.toml").write_text("join = 'heads'\nnetworks = ['a.onnx']\n")

    assert main(["join", "c.toml", "-o", "out.onnx"]) == 2
    assert "output 'y' differs" in capsys.readouterr().err
    assert not (folder / "out.onnx").exists()


def test_the_check_sees_sizes() -> None:
    """An answer of another size is another answer."""
    graph = matrix()
    (one, _) = noise(graph)

    def longer(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": np.zeros((2, 3), np.float32)}

    with pytest.raises(InputError, match="by inf of its largest number"):
        check_same(graph, longer, [one], threads=1, what="it")
    assert Value(name="x", dtype=FLOAT32, shape=("N", 4)) == graph.inputs[0]
