"""Which layer an engine's node is counted with."""

from tests.host.networks.quantized_nets import dense_net, examples, residual_net, stacked

from onhand.host.costs.network_corners import mixes_of
from onhand.host.costs.networks import borders_of
from onhand.host.costs.node_times import OTHER, owners, shared_out, time_layers
from onhand.host.networks.quantization.plan import layers_of


def test_what_engines_make_of_a_name_is_known_again() -> None:
    """As ONNX Runtime and OpenVINO write them; of two names the longer one, whole."""
    owned = {"t1": "t1", "t11": "t11", "t11_p": "t11"}
    taken = {
        "t11_p_token_3": 1.0,
        "t1_nchwc": 2.0,
        "in_abcd_acdb_t11/WithoutBiases": 4.0,
        "q1": 8.0,
    }

    found = shared_out(taken, owned)

    assert found == {"t1": 2.0, "t11": 5.0, OTHER: 8.0}


def test_every_node_goes_with_a_layer() -> None:
    """What stands behind a layer with that one."""
    graph = residual_net()
    layers = list(layers_of(graph))

    owned = owners(graph, layers)

    assert set(owned) == {node.name for node in graph.nodes}
    assert set(owned.values()) == set(layers)
    for node in graph.nodes:
        if node.op == "Clip":
            assert owned[node.name] == node.inputs[0]


def test_borders_lie_between_layers_alone() -> None:
    """A chain of products has one before each, and the first reads what is fed."""
    graph = dense_net(6, 5, 4)
    first, second = layers_of(graph)

    found = borders_of(graph, [first, second])

    assert [(b.before, b.after, b.n_values) for b in found] == [("", first, 6), (first, second, 5)]


def test_an_engine_tells_what_layers_take() -> None:
    """ONNX Runtime, from its own clock."""
    graph = residual_net()
    layers = list(layers_of(graph))

    taken = time_layers(
        graph, owners(graph, layers), dict(stacked(examples(graph, 1))), engine="onnx", threads=1
    )

    assert set(taken) == {*layers, OTHER}
    assert all(taken[name] > 0 for name in layers)
    assert not time_layers(graph, {}, {}, engine="reference", threads=1)


def test_mixes_differ_and_are_no_corners() -> None:
    """Few layers have few mixes."""
    for n in (1, 2, 3, 9):
        found = mixes_of([f"l{i}" for i in range(n)], "static-8")
        assert all(len(set(mix.values())) == 2 for mix in found)
        assert len({tuple(mix.values()) for mix in found}) == len(found)
    assert len(mixes_of(["a"], "static-8")) == 0
