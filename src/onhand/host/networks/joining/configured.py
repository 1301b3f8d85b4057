"""Networks joined as a file says, checked against their parts, and written as one file."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.errors import InputError, ShapeError
from onhand.core.outside import object_of, shown
from onhand.device.threads import usable_threads
from onhand.host.networks.graph import Array, Graph, Value
from onhand.host.networks.joining.checked import check_same, noise, passing, pictures, preparing
from onhand.host.networks.joining.growing import Growth
from onhand.host.networks.joining.lora import read_factors, with_factors
from onhand.host.networks.joining.parts import PART, Part, read_numbers, read_part, read_places
from onhand.host.networks.joining.scoring import Contest, accuracy_of
from onhand.host.networks.joining.together import cascade, share_trunk
from onhand.host.networks.joining.writing import (
    Joined,
    as_example,
    check_place,
    put_tokenizer,
    write_joined,
)
from onhand.host.networks.loading import load_network
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.soup import average_graphs, greedy_soup, merge_lora

__all__ = ["average_networks", "join_networks"]

_KEYS: Final[Mapping[str, set[str]]] = {
    "network": {"join", *PART},
    "heads": {"join", "networks", "names"},
    "cascade": {"join", "detector", "classifier"},
    "average": {"join", "networks", "weights"},
    "lora": {"join", "network", "adapter"},
}


Apart = Callable[[dict[str, Array]], dict[str, Array]]


def join_networks(config: Path, out: Path, *, threads: int | None = None) -> Joined:
    """Join networks as a file says, and write the result once its answers are those of its parts.

    Args:
        config: TOML; see docs/fusion.md. Places in it are seen from its folder.
        out: the `.onnx` file to make; must not exist.
        threads: of one run; None for all usable ones.

    Returns:
        What was written.

    Raises:
        InputError: if the file, a network or an option cannot be used, or answers differ.
        SourceError: if a network cannot be read.
    """
    check_place(out)
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{config}: cannot be read: {error}") from error
    kind = table.get("join")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise InputError(f"{config}: join is {shown(kind)}, must be one of {', '.join(_KEYS)}")
    object_of(table, str(config), _KEYS[kind])
    n_threads = threads or usable_threads()
    where = str(config)
    try:
        if kind == "network":
            return _one(read_part(table, config.parent, where), out, n_threads)
        if kind == "cascade":
            parts = [
                read_part(
                    object_of(table.get(key), f"{where}: {key}", set(PART)),
                    config.parent,
                    f"{where}: {key}",
                )
                for key in ("detector", "classifier")
            ]
            return _cascade(parts[0], parts[1], out, n_threads)
        if kind == "lora":
            return _lora(table, config.parent, where, out, n_threads)
        places = read_places(table.get("networks"), config.parent, where)
        if kind == "average":
            return average_networks(
                places, out, weights=read_numbers(table, "weights", where), threads=threads
            )
        return _heads(places, table.get("names"), where, out, n_threads)
    except ShapeError as error:
        raise InputError(f"{config}: {error}") from error


def average_networks(
    places: Sequence[str | Path],
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    contest: Contest | None = None,
    threads: int | None = None,
) -> Joined:
    """Average the weights of networks that were trained from the same start.

    Args:
        places: files or folders, of the same form.
        out: the `.onnx` file to make; must not exist.
        weights: of each; None for the same each.
        contest: examples that say which of them to average, the best first, as long as it helps;
            None for all.
        threads: of one run; None for all usable ones.

    Returns:
        What was written.

    Raises:
        InputError: if there are fewer than two, they differ in more than floats, or examples
            cannot be used.
        SourceError: if one cannot be read.
    """
    check_place(out)
    if len(places) < 2:
        raise InputError(f"an average needs two networks or more, {len(places)} given")
    if contest is not None and weights is not None:
        raise InputError("examples choose the networks of an average; leave weights out")
    models = [_load(place) for place in places]
    graphs = [model.graph for model in models]
    n_threads = threads or usable_threads()
    names = [Path(place).name for place in places]
    graph = average_graphs(graphs, weights)
    if contest is None:
        shares = np.ones(len(models)) if weights is None else np.asarray(weights, np.float64)
        parts = zip(names, shares / shares.sum(), strict=True)
        said = f"shares: {', '.join(f'{name} {part:.3g}' for name, part in parts)}"
    else:
        soup = greedy_soup(graphs, accuracy_of(models[0], contest, threads=n_threads))
        graph = soup.graph
        members = ", ".join(names[i] for i in soup.members)
        said = f"the average of {members} names {soup.score:.2%} of the examples rightly"
    _check_numbers(graph, n_threads)
    total = sum(one.size_bytes() for one in graphs)
    return write_joined(graph, out, total, 0.0, (said, *put_tokenizer(models[0], out)))


def _check_numbers(graph: Graph, threads: int) -> None:
    """Check that a graph answers with numbers; an average has no parts to agree with.

    Raises:
        InputError: if it does not.
    """
    runner = GraphRunner(graph, threads=threads)
    for feeds in noise(graph):
        for name, array in runner.run(feeds).items():
            if not np.isfinite(array.astype(np.float64)).all():
                raise InputError(f"the average gives a NaN in {name!r}; nothing is written")


def _one(part: Part, out: Path, threads: int) -> Joined:
    if part.feed is None and not part.answer and not part.has_cells:
        raise InputError("nothing to join: give [picture], [answer], or cells = true")
    whole, most = _checked(part, "the network as one graph", threads)
    made = whole if part.feed is None else as_example(whole)
    return write_joined(made, out, part.graph.size_bytes(), most)


def _checked(part: Part, what: str, threads: int) -> tuple[Graph, float]:
    """Return a part as one graph whose answers are those of its steps, and how far they are."""
    most = 0.0
    # What is chosen from boxes may be nothing: what it is chosen from is compared as well.
    parts = [replace(part, answer={}), part] if part.answer else [part]
    for one in parts:
        apart, examples = _apart(one, threads)
        found = check_same(one.whole(), apart, examples, threads=threads, what=what)
        most = max(most, found)
    return part.whole(), most


def _apart(part: Part, threads: int) -> tuple[Apart, list[dict[str, Array]]]:
    """Return the steps of a part one after the other, and inputs for them."""
    network = GraphRunner(part.graph, threads=threads)
    known = infer_shapes(part.graph)
    values = [
        replace(value, shape=known.get(value.name, value).shape) for value in part.graph.outputs
    ]
    behind = GraphRunner(part.behind(passing(values, opset=part.graph.opset)), threads=threads)
    first = part.graph.inputs[0]

    def answered(feeds: dict[str, Array]) -> dict[str, Array]:
        made = network.run(feeds)
        return behind.run({f"{name}.in": array for name, array in made.items()})

    if part.feed is None:
        return answered, noise(part.graph)
    prepare = preparing(part.feed, first, part.size, opset=part.graph.opset, threads=threads)

    def apart(feeds: dict[str, Array]) -> dict[str, Array]:
        others = {name: array for name, array in feeds.items() if name != "picture"}
        return answered({first.name: prepare(feeds["picture"]), **others})

    (others, *_) = noise(replace(part.graph, inputs=part.graph.inputs[1:]))
    return apart, [{"picture": p, **others} for p in pictures(part.feed, part.size)]


def _heads(places: list[str], names: object, where: str, out: Path, threads: int) -> Joined:
    models = [_load(place) for place in places]
    called = [model.name for model in models] if names is None else names
    if not isinstance(called, list) or not all(isinstance(name, str) for name in called):
        raise InputError(f"{where}: names is {shown(names)}, must be a list of names")
    first = models[0].graph
    graphs = [first, *(_fed_like(first, model) for model in models[1:])]
    whole = share_trunk(graphs, names=called)
    alone = [GraphRunner(graph, threads=threads) for graph in graphs]

    def apart(feeds: dict[str, Array]) -> dict[str, Array]:
        made = [array for runner in alone for array in runner.run(dict(feeds)).values()]
        return dict(zip(whole.output_names(), made, strict=True))

    most = check_same(whole, apart, noise(graphs[0]), threads=threads, what="the heads as one")
    total = sum(graph.size_bytes() for graph in graphs)
    outputs = ", ".join(whole.output_names())
    return write_joined(
        whole, out, total, most, (f"outputs: {outputs}", *put_tokenizer(models[0], out))
    )


def _fed_like(first: Graph, model: NetworkModel) -> Graph:
    """Return a graph whose inputs are called as the first one's, where they are the same."""
    graph = model.graph
    same = [(value.dtype, value.shape) for value in graph.inputs] == [
        (value.dtype, value.shape) for value in first.inputs
    ]
    new = {old.name: value.name for old, value in zip(graph.inputs, first.inputs, strict=False)}
    names = {old: name for old, name in new.items() if old != name}
    fixed = {name for node in graph.nodes for name in node.captured}
    if not same or fixed & set(names) or graph.names() & set(names.values()):
        return graph  # what is different there is an error with its name in it
    return replace(graph.renamed(names), inputs=first.inputs)


def _cascade(detector: Part, classifier: Part, out: Path, threads: int) -> Joined:
    if detector.feed is None or classifier.feed is None:
        raise InputError("a cascade needs [detector.picture] and [classifier.picture]")
    if classifier.answer or classifier.has_cells or classifier.size is not None:
        raise InputError("a cascade's classifier has no answer, cells or size of its own")
    finds, most = _checked(detector, "the detector as one graph", threads)
    whole = cascade(finds, classifier.graph, classifier.feed)
    most = max(most, _check_crops(classifier, threads))
    total = detector.graph.size_bytes() + classifier.graph.size_bytes()
    return write_joined(as_example(whole), out, total, most)


def _check_crops(classifier: Part, threads: int) -> float:
    """Let the classifier name given boxes, in one graph and crop by crop."""
    feed = classifier.feed
    if feed is None:
        return 0.0
    boxes = np.array(
        [[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0], [0.7, 0.5, 0.95, 0.8]], np.float32
    )
    g = Growth({"picture"})
    g.op("Identity", boxes, called="found")
    picture = Value(name="picture", dtype=np.dtype(np.uint8), shape=(None, None, 3))
    stub = Graph(
        nodes=tuple(g.nodes),
        constants=g.constants,
        inputs=(picture,),
        outputs=(Value(name="found", dtype=np.dtype(np.float32), shape=(None, 4)),),
        opset=classifier.graph.opset,
    )
    first = classifier.graph.inputs[0]
    prepare = preparing(feed, first, None, opset=classifier.graph.opset, threads=threads)
    alone = GraphRunner(classifier.graph, threads=threads)
    whole = cascade(stub, classifier.graph, feed)

    def apart(feeds: dict[str, Array]) -> dict[str, Array]:
        pixels = feeds["picture"]
        H, W = pixels.shape[:2]
        rows = []
        for left, top, right, bottom in boxes.astype(np.float64):
            down = slice(int(np.floor(top * H)), int(np.ceil(bottom * H)))
            across = slice(int(np.floor(left * W)), int(np.ceil(right * W)))
            made = alone.run({first.name: prepare(pixels[down, across])})
            rows.append(list(made.values()))
        found = [np.concatenate(column) for column in zip(*rows, strict=True)]
        return dict(zip(whole.output_names()[1:], found, strict=True))

    examples: list[dict[str, Array]] = [{"picture": p} for p in pictures(feed, None)]
    return check_same(whole, apart, examples, threads=threads, what="the classifier of crops")


def _lora(table: Mapping[str, object], folder: Path, where: str, out: Path, threads: int) -> Joined:
    adapter = table.get("adapter")
    if not isinstance(adapter, str):
        raise InputError(f"{where}: adapter is {shown(adapter)}, must be a folder")
    (place,) = read_places([table.get("network")], folder, where)
    model = _load(place)
    factors = read_factors(folder / adapter, model.graph)
    merged = merge_lora(model.graph, factors)
    runner = GraphRunner(with_factors(model.graph, merged, factors), threads=threads)
    most = check_same(
        merged, runner.run, noise(merged), threads=threads, what="the network with its adapter"
    )
    notes = (f"the adapter changes {len(factors)} constants", *put_tokenizer(model, out))
    return write_joined(merged, out, model.graph.size_bytes(), most, notes)


def _load(place: str | Path) -> NetworkModel:
    return load_network(str(place), task="features")
