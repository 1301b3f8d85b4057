"""Networks in one graph beside the same steps one after the other: answers and times.

    python -m benchmarks.fusion --assets ../shared/assets [--encoder DIR] [--out results.json]

The folder has `fastestdet` (a detector and photographs) and `vision-imagenet-onnx-derived` (a
classifier); `--encoder` is one of sentences, of which is shown what ONNX Runtime does by itself to
graphs of open and of known sizes. All ways of a case take turns within each round; times are
medians with quartiles.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.onnx import SLOWER_FUSIONS
from onhand.device.networks.pictures import feed_picture, read_picture
from onhand.device.threads import usable_threads
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.join import (
    cascade,
    decode_cells,
    share_trunk,
    with_postprocessing,
    with_preprocessing,
)
from onhand.host.networks.loading import load_network
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.fuse import Fuse
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

__all__ = ["main"]

SEES = PictureFeed(height=352, width=352, resize="stretch", channels="bgr")
NAMES = PictureFeed(height=128, width=128, resize="stretch", mean=(127.5,) * 3, std=(127.5,) * 3)
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}
Answer = Mapping[str, Array]
Ways = dict[str, Callable[[], Answer]]


def main() -> None:
    """Run every case, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="processor: seconds that were computed, for machines that others keep busy",
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--encoder", type=Path)
    given = parser.parse_args()
    cases = {
        "picture": picture_case(given.assets, given.threads),
        "chain": chain_case(given.assets, given.threads),
        "heads": heads_case(given.assets, given.threads),
        "encoder": encoder_case(given.threads),
        "attention, 128 tokens": attention_case(128, given.threads),
        "attention, 512 tokens": attention_case(512, given.threads),
    }
    if given.encoder is not None:
        cases |= sizes_cases(given.encoder, given.threads)
    results = {
        name: measured(ways, given.rounds, CLOCKS[given.clock]) for name, ways in cases.items()
    }
    for name, ways in results.items():
        for way, found in ways.items():
            low, high = found.quartiles_s
            sys.stdout.write(
                f"{name:21} {way:32} {1e3 * found.median_s:8.2f} ms "
                f"({1e3 * low:.2f} to {1e3 * high:.2f})  differs by {found.difference:.2g}\n"
            )
    record = {
        "clock": given.clock,
        "machine": f"{platform.machine()}, {given.threads} threads",
        "results": {n: {w: asdict(t) for w, t in ways.items()} for n, ways in results.items()},
        "rounds": given.rounds,
    }
    if given.out is not None:
        given.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """How long one way took, and how far its answer was from the first way's."""

    median_s: float
    quartiles_s: tuple[float, float]
    difference: float


def measured(ways: Ways, rounds: int, clock: Callable[[], float]) -> dict[str, Timed]:
    """Time each way in turn; say how far its first answer is from the first way's."""
    answers = {way: run() for way, run in ways.items()}
    first = next(iter(answers.values()))
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            begun = clock()
            run()
            samples[way].append(clock() - begun)
    made: dict[str, Timed] = {}
    for way, times in samples.items():
        low, middle, high = statistics.quantiles(times, n=4)
        made[way] = Timed(
            median_s=middle,
            quartiles_s=(low, high),
            difference=difference(first, answers[way]),
        )
    return made


def difference(left: Answer, right: Answer) -> float:
    """Return the largest difference of all outputs; infinity where shapes differ."""
    if any(array.shape != right[name].shape for name, array in left.items()):
        return math.inf
    return max(
        float(np.abs(array.astype(np.float64) - right[name].astype(np.float64)).max(initial=0.0))
        for name, array in left.items()
    )


def fed(feed: PictureFeed, pixels: NDArray[np.uint8]) -> Array:
    """What the device's reader makes of a picture."""
    return feed_picture(pixels, feed, ArrayInfo(name="x", dtype="float32", shape=()))


def classifier_of(assets: Path) -> Graph:
    """Return the classifier."""
    folder = assets / "vision-imagenet-onnx-derived"
    return read_onnx(folder / "mobilenet_v1_0.25_128_qat_dequant_fp32.onnx")


def picture_case(assets: Path, threads: int) -> Ways:
    """One picture: scaled by Pillow and run, or both in one graph."""
    graph = classifier_of(assets)
    pixels = read_picture(assets / "fastestdet" / "0.jpg")
    apart = GraphRunner(graph, threads=threads)
    free = GraphRunner(with_preprocessing(graph, NAMES), threads=threads)
    known = with_preprocessing(graph, NAMES, size=(pixels.shape[0], pixels.shape[1]))
    fixed = GraphRunner(known, threads=threads)
    return {
        "one after the other": lambda: apart.run({"input": fed(NAMES, pixels)}),
        "one graph, any size": lambda: free.run({"picture": pixels}),
        "one graph, this size": lambda: fixed.run({"picture": pixels}),
    }


def chain_case(assets: Path, threads: int) -> Ways:
    """A detector, crops of what it finds, and a classifier of each."""
    graph, classifier = read_onnx(assets / "fastestdet" / "FastestDet.onnx"), classifier_of(assets)
    pixels = read_picture(assets / "fastestdet" / "0.jpg")
    finds = with_postprocessing(decode_cells(graph), "nms", least_score=0.5)
    size = (pixels.shape[0], pixels.shape[1])
    sees = GraphRunner(finds, threads=threads)
    names = GraphRunner(classifier, threads=threads)
    whole = GraphRunner(
        cascade(with_preprocessing(finds, SEES, size=size), classifier, NAMES), threads=threads
    )

    def apart() -> Answer:
        found = sees.run({graph.inputs[0].name: fed(SEES, pixels)})
        H, W = size
        crops: list[Array] = []
        for left, top, right, bottom in found["boxes"].astype(np.float64).clip(0, 1):
            rows = slice(math.floor(top * H), math.ceil(bottom * H))
            columns = slice(math.floor(left * W), math.ceil(right * W))
            crops.append(fed(NAMES, pixels[rows, columns]))
        named = names.run({"input": np.concatenate(crops)})
        return {"classes": found["classes"], "names": named["output"].astype(np.float64).argmax(1)}

    def joined() -> Answer:
        found = whole.run({"picture": pixels})
        best = found["output"].astype(np.float64).argmax(1)
        return {"classes": found["classes"], "names": best}

    return {"one after the other": apart, "one graph": joined}


def heads_case(assets: Path, threads: int) -> Ways:
    """Two heads over one trunk: two networks, or one that computes the trunk once."""
    one = classifier_of(assets)
    last = [node for node in one.nodes if node.op == "Conv"][-1].inputs[1]
    flipped = np.ascontiguousarray(np.flip(one.constants[last].astype(np.float32), axis=0))
    other = replace(one, constants={**one.constants, last: flipped})
    x = {"input": fed(NAMES, read_picture(assets / "fastestdet" / "0.jpg"))}
    alone = [GraphRunner(graph, threads=threads) for graph in (one, other)]
    joined = GraphRunner(share_trunk([one, other], names=["one", "other"]), threads=threads)

    def apart() -> Answer:
        first, second = (runner.run(x)["output"] for runner in alone)
        return {"output": first, "other.output": second}

    return {"two networks": apart, "one graph": lambda: joined.run(x)}


def encoder_case(threads: int, *, tokens: int = 128, width: int = 384, layers: int = 6) -> Ways:
    """An encoder's feed-forward parts and norms, as exporters spell them out, and fused."""
    graph = encoder(tokens=tokens, width=width, layers=layers)
    bench = Workbench(original=graph, calibration=Samples(feeds=[]), task="features", threads=1)
    x = {"x": np.random.default_rng(0).normal(size=(1, tokens, width)).astype(np.float32)}
    passes = {
        "as exported": None,
        "Fuse, standard": Fuse(),
        "Fuse, onnxruntime": Fuse(operators="onnxruntime"),
        "Fuse, onnxruntime, products": Fuse(operators="onnxruntime", products=True),
    }
    ways: Ways = {}
    for name, fuse in passes.items():
        made = graph if fuse is None else fuse.apply(graph, bench).graph
        runner = GraphRunner(made, threads=threads)
        ways[name] = lambda runner=runner: runner.run(x)  # type: ignore[misc]  # a default binds it
    return ways


def encoder(*, tokens: int, width: int, layers: int) -> Graph:
    """Return layers of three products, their sum, a norm, a Gelu and two products; B is 1."""
    rng = np.random.default_rng(0)
    numbers = {"root2": math.sqrt(2), "one": 1.0, "half": 0.5, "two": 2.0, "epsilon": 1e-5}
    constants: dict[str, Array] = {k: np.array(v, np.float32) for k, v in numbers.items()}
    nodes: list[Node] = []

    def op(kind: str, output: str, *inputs: str, **axes: tuple[int, ...]) -> str:
        nodes.append(Node(op=kind, inputs=inputs, outputs=(output,), attributes=axes))
        return output

    def matrix(name: str, *shape: int) -> str:
        constants[name] = (rng.normal(size=shape) / math.sqrt(shape[0])).astype(np.float32)
        return name

    x = "x"
    for i in range(layers):
        parts = [
            op("MatMul", f"{k}{i}", x, matrix(f"w{k}{i}", width, width)) for k in ("q", "k", "v")
        ]
        total = op(
            "Add", f"sum{i}", op("Add", f"qk{i}", *parts[:2]), op("Add", f"vx{i}", parts[2], x)
        )
        mean = op("ReduceMean", f"mean{i}", total, axes=(-1,))
        away = op("Sub", f"away{i}", total, mean)
        spread = op("ReduceMean", f"var{i}", op("Pow", f"sq{i}", away, "two"), axes=(-1,))
        root = op("Sqrt", f"sqrt{i}", op("Add", f"eps{i}", spread, "epsilon"))
        plain = op("Div", f"plain{i}", away, root)
        x = op("Add", f"norm{i}", op("Mul", f"gain{i}", plain, matrix(f"g{i}", width)),
               matrix(f"b{i}", width))  # fmt: skip
        wide = op("MatMul", f"wide{i}", x, matrix(f"up{i}", width, 4 * width))
        erf = op("Erf", f"erf{i}", op("Div", f"div{i}", wide, "root2"))
        gate = op("Mul", f"gate{i}", wide, op("Add", f"plus{i}", erf, "one"))
        x = op("MatMul", f"out{i}", op("Mul", f"gelu{i}", gate, "half"),
               matrix(f"down{i}", 4 * width, width))  # fmt: skip
    float32 = np.dtype(np.float32)
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=(Value(name="x", dtype=float32, shape=(1, tokens, width)),),
        outputs=(Value(name=x, dtype=float32, shape=(1, tokens, width)),),
        opset=17,
    )


def attention_case(tokens: int, threads: int, *, width: int = 384, heads: int = 12) -> Ways:
    """Three layers of attention without a mask, with their products, as exported and fused."""
    graph = attention(width=width, heads=heads, layers=3)
    bench = Workbench(original=graph, calibration=Samples(feeds=[]), task="features", threads=1)
    x = {"x": np.random.default_rng(0).normal(size=(1, tokens, width)).astype(np.float32)}
    fused = Fuse(operators="onnxruntime").apply(graph, bench).graph
    apart, whole = (GraphRunner(made, threads=threads) for made in (graph, fused))
    return {"as exported": lambda: apart.run(x), "Fuse, onnxruntime": lambda: whole.run(x)}


def attention(*, width: int, heads: int, layers: int) -> Graph:
    """Return layers of attention of any number and length of sequences."""
    rng = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "heads": np.array([0, 0, heads, width // heads]),
        "joined": np.array([0, 0, width]),
        "root": np.array(math.sqrt(width // heads), np.float32),
    }
    nodes: list[Node] = []

    def op(kind: str, *inputs: str, **attributes: int | tuple[int, ...]) -> str:
        name = f"{len(nodes)}.{kind}"
        nodes.append(Node(op=kind, inputs=inputs, outputs=(name,), attributes=attributes))
        return name

    def product(x: str) -> str:
        name = f"w{len(nodes)}"
        matrix = rng.normal(size=(width, width)) / math.sqrt(width)
        constants[name] = matrix.astype(np.float32)
        return op("MatMul", x, name)

    x = "x"
    for _ in range(layers):
        query, key, value = (
            op("Transpose", op("Reshape", product(x), "heads"), perm=perm)
            for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        )
        scores = op("Div", op("MatMul", query, key), "root")
        mixed = op("MatMul", op("Softmax", scores, axis=-1), value)
        together = op("Reshape", op("Transpose", mixed, perm=(0, 2, 1, 3)), "joined")
        x = op("Add", product(together), x)
    shape = ("batch", "tokens", width)
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=(Value(name="x", dtype=np.dtype(np.float32), shape=shape),),
        outputs=(Value(name=x, dtype=np.dtype(np.float32), shape=shape),),
        opset=17,
    )


def sizes_cases(encoder: Path, threads: int, *, tokens: int = 128) -> dict[str, Ways]:
    """An encoder in float32 and in int8, of open sizes and of known ones, fused more or less."""
    graph = load_network(str(encoder), task="text-embedding").graph
    rng = np.random.default_rng(0)
    every = {
        "input_ids": rng.integers(1000, 20000, (1, tokens)),
        "attention_mask": np.ones((1, tokens), np.int64),
        "token_type_ids": np.zeros((1, tokens), np.int64),
    }
    x = {value.name: every[value.name] for value in graph.inputs}
    known = replace(graph, inputs=tuple(replace(v, shape=(1, tokens)) for v in graph.inputs))
    made: dict[str, Ways] = {}
    for name, pair in {
        "float32": (graph, known),
        "int8": (in_int8(graph, x), in_int8(known, x)),
    }.items():
        ways = {
            "open sizes": session(pair[0], (), threads),
            "known sizes": session(pair[1], (), threads),
            "known sizes, as our engine opens": session(pair[1], SLOWER_FUSIONS, threads),
        }
        made[f"encoder, {name}"] = {
            way: lambda run=run: {"vector": run(None, x)[0]}  # type: ignore[misc]  # binds it
            for way, run in ways.items()
        }
    return made


def in_int8(graph: Graph, x: Mapping[str, Array]) -> Graph:
    """Return a graph on integers, calibrated with one text: only its time says something."""
    bench = Workbench(
        original=graph, calibration=Samples(feeds=[x]), task="text-embedding", threads=1
    )
    return QuantizeNetwork(range="min-max", bias_correction="none").apply(graph, bench).graph


def session(
    graph: Graph, disabled: Sequence[str], threads: int
) -> Callable[[None, Answer], list[Array]]:
    """Return the run of an open graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    opened = ort.InferenceSession(
        model_bytes(graph),
        options,
        ["CPUExecutionProvider"],
        disabled_optimizers=list(disabled),
    )
    run: Callable[[None, Answer], list[Array]] = opened.run
    return run


if __name__ == "__main__":
    main()
