"""Averages of networks, and adapters merged into one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from tests.host.networks.graphs import computed

from onhand.core.errors import InputError, ShapeError
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.soup import LoraFactors, average_graphs, greedy_soup, merge_lora

F32 = np.dtype(np.float32)


def line(**constants: Array) -> Graph:
    """A network of one product: x (N, 2) -> y (N, 3)."""
    given: dict[str, Array] = {
        "w": np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32),
        "k": np.array([0, 3], dtype=np.int64),
    }
    nodes = (
        Node(op="MatMul", inputs=("x", "w"), outputs=("a",)),
        Node(op="Reshape", inputs=("a", "k"), outputs=("y",)),
    )
    return Graph(
        nodes=nodes,
        constants=given | constants,
        inputs=(Value(name="x", dtype=F32, shape=("N", 2)),),
        outputs=(Value(name="y", dtype=F32, shape=("N", 3)),),
        opset=17,
    )


def constant(number: float) -> Graph:
    """The same with one number in all weights."""
    return line(w=np.full((2, 3), number, dtype=np.float32))


def test_an_average_by_hand() -> None:
    """Equal shares, or those that are given, whatever they sum to."""
    graphs = [constant(1), constant(2), constant(6)]

    even = average_graphs(graphs)
    given = average_graphs(graphs, [2, 0, 2])

    np.testing.assert_array_equal(even.constants["w"], np.full((2, 3), 3, dtype=np.float32))
    np.testing.assert_array_equal(given.constants["w"], np.full((2, 3), 3.5, dtype=np.float32))
    assert even.constants["k"] is graphs[0].constants["k"]


def test_a_greedy_soup_takes_what_helps() -> None:
    """The best first; another only if the average is no worse."""

    def score(graph: Graph) -> float:
        return -abs(float(graph.constants["w"].astype(float).mean()) - 2.3)

    made = greedy_soup([constant(9), constant(1), constant(3), constant(2)], score)

    assert made.members == (3, 2)  # 2, then (2 + 3) / 2; not 1, not 9
    assert made.score == pytest.approx(score(made.graph))
    assert made.score >= max(score(constant(n)) for n in (9, 1, 3, 2))


@pytest.mark.parametrize(
    ("graphs", "weights", "message"),
    [
        ([], None, "no network"),
        ([constant(1)], [1, 2], "must be 1 numbers"),
        ([constant(1)] * 2, [0, 0], "all 0"),
        ([constant(1), constant(1)], [1, -1], "0 or more"),
        ([constant(1), line(w=np.zeros((2, 4), dtype=np.float32))], None, "network 2 .* must be"),
        ([constant(1), line(k=np.array([0, -1]))], None, "whole numbers have no average"),
        ([constant(1), replace(constant(1), nodes=())], None, "nodes differ"),
        ([constant(1), line(v=np.zeros(1))], None, "only one of them has 'v'"),
    ],
)
def test_networks_of_other_forms_are_refused(
    graphs: list[Graph], weights: list[float] | None, message: str
) -> None:
    """Each by a sentence that says where they differ."""
    with pytest.raises(InputError, match=message):
        average_graphs(graphs, weights)


@pytest.mark.parametrize(
    ("node", "shape", "attributes"),
    [("MatMul", (2, 3), {}), ("Gemm", (3, 2), {"transB": 1}), ("Conv", (3, 1, 2), {})],
)
def test_a_merged_adapter_computes_what_it_did_beside_the_network(
    node: str, shape: tuple[int, ...], attributes: Mapping[str, int]
) -> None:
    """The product of its factors is added to what the constant computes."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape).astype(np.float32)
    sizes = ("N", 1, 2) if node == "Conv" else ("N", 2)
    graph = Graph(
        nodes=(Node(op=node, inputs=("x", "w"), outputs=("y",), attributes=attributes),),
        constants={"w": weight},
        inputs=(Value(name="x", dtype=F32, shape=sizes),),
        outputs=(Value(name="y", dtype=F32, shape=("N", 3, 1)[: len(sizes)]),),
        opset=17,
    )
    factors = LoraFactors(
        down=rng.normal(size=(1, 2)).astype(np.float32),
        up=rng.normal(size=(3, 1)).astype(np.float32),
        scale=0.5,
    )
    x = rng.normal(size=(4, *[n for n in sizes if isinstance(n, int)])).astype(np.float32)

    merged = merge_lora(graph, {"w": factors})

    (before,), (after,) = computed(graph, {"x": x}), computed(merged, {"x": x})
    added = 0.5 * x.reshape(4, 2) @ factors.down.T.astype(float) @ factors.up.T.astype(float)
    np.testing.assert_allclose(
        after.reshape(4, 3).astype(float), before.reshape(4, 3).astype(float) + added, atol=1e-5
    )


def test_adapters_that_do_not_fit_are_refused() -> None:
    """By name and shapes."""
    ones = np.ones((1, 2), dtype=np.float32)
    with pytest.raises(InputError, match="no constant 'k' of floating point"):
        merge_lora(line(), {"k": LoraFactors(down=ones, up=ones.T)})
    with pytest.raises(ShapeError, match=r"w: \(2, 3\) does not fit a change of \(2, 2\)"):
        merge_lora(line(), {"w": LoraFactors(down=ones, up=ones.T)})
    with pytest.raises(ShapeError, match=r"are no \(N, R\), \(R, K\)"):
        merge_lora(line(), {"w": LoraFactors(down=ones, up=ones)})
