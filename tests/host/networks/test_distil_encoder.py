"""Distillation of encoders: texts of many lengths, vectors as answers."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from tests.host.networks.test_distil import F32, QUICK, bench, damaged, figures

from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.samples import Samples


def encoder(seed: int = 0) -> Graph:
    """Two layers of attention over ids (N, T), and their mean: y (N, 8)."""
    rng = np.random.default_rng(seed)
    constants: dict[str, Array] = {"table": rng.normal(size=(12, 8)).astype(np.float32)}
    nodes, x = [Node(op="Gather", inputs=("table", "ids"), outputs=("v",))], "v"
    for i in range(2):
        for part in ("q", "k", "m"):
            constants[f"{i}.{part}.w"] = rng.normal(size=(8, 8)).astype(np.float32) / 3
            nodes.append(Node(op="MatMul", inputs=(x, f"{i}.{part}.w"), outputs=(f"{i}.{part}",)))
        nodes += [
            Node(op="Transpose", inputs=(f"{i}.k",), outputs=(f"{i}.t",),
                 attributes={"perm": (0, 2, 1)}),
            Node(op="MatMul", inputs=(f"{i}.q", f"{i}.t"), outputs=(f"{i}.s",)),
            Node(op="Softmax", inputs=(f"{i}.s",), outputs=(f"{i}.p",)),
            Node(op="MatMul", inputs=(f"{i}.p", f"{i}.m"), outputs=(f"{i}.a",)),
            Node(op="Add", inputs=(f"{i}.a", x), outputs=(f"{i}.x",)),
        ]  # fmt: skip
        x = f"{i}.x"
    nodes.append(
        Node(op="ReduceMean", inputs=(x,), outputs=("y",), attributes={"axes": (1,), "keepdims": 0})
    )
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=(Value(name="ids", dtype=np.dtype(np.int64), shape=("N", "T")),),
        outputs=(Value(name="y", dtype=F32, shape=("N", 8)),),
        opset=17,
    )


@pytest.mark.parametrize("more", [{}, {"features": 1.0}, {"precision": "bfloat16"}], ids=str)
def test_an_encoder_learns_from_texts_of_many_lengths(more: Mapping[str, object]) -> None:
    """Its vectors turn back to the teacher's, and its table of words stays."""
    rng = np.random.default_rng(2)
    texts = Samples(feeds=[{"ids": rng.integers(0, 12, (1, 3 + i % 5))} for i in range(60)])
    weak = damaged(encoder(), by=0.15)
    weak = replace(weak, constants={**weak.constants, "table": encoder().constants["table"]})
    given = bench(encoder(), calibration=texts, task="text-embedding")
    transform = replace(QUICK, steps=80, freeze=("table",), **more)  # type: ignore[arg-type]

    made = transform.apply(weak, given)

    before, after = figures(made.notes[0])
    assert after < before / 2
    assert made.kept == {"table": "frozen by 'table'"}
    assert set(made.changed) == set(weak.constants) - {"table"}
