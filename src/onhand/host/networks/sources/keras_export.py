"""Write a Keras model as an ONNX file: `python -m onhand.host.networks.sources.keras_export`.

Keras chooses its backend when it is imported, for the whole process: so this is one of its own.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onhand.core.errors import SourceError
from onhand.host.networks.clean import clean
from onhand.host.networks.graph import Array, Graph, fresh_name
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.sources.keras_layers import LAYERS
from onhand.host.networks.sources.keras_step import KerasStep
from onhand.host.networks.sources.layout import Shape, Tensor, Weaver

if TYPE_CHECKING:
    import keras

__all__ = ["graph_from_keras", "main"]

_Key = tuple[str, int, int]


def main() -> int:
    """Read the model IN, write OUT, and print what a report needs, as JSON; 1 if it cannot."""
    os.environ["KERAS_BACKEND"] = "torch"
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        model = _load(source)
        graph = graph_from_keras(model)
        target.write_bytes(model_bytes(graph))
    except SourceError as error:
        sys.stderr.write(f"{source}: {error}\n")
        return 1
    widths = [variable.numpy().dtype.itemsize * 8 for variable in model.weights]
    told = {
        "n_bytes": sum(variable.numpy().nbytes for variable in model.weights),
        "bits": max(set(widths), key=widths.count) if widths else 32,
    }
    sys.stdout.write(json.dumps(told))
    return 0


def _load(path: Path) -> "keras.Model":
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        """As Keras 2 wrote it: with `groups`, which it had no use for."""

        def __init__(self, **fields: Any) -> None:
            fields.pop("groups", None)
            super().__init__(**fields)

    known = {"DepthwiseConv2D": DepthwiseConv2D} if path.suffix != ".keras" else None
    try:
        # What a file names may be any object of Python's: safe mode knows layers alone.
        model = keras.saving.load_model(path, custom_objects=known, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, AttributeError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
        raise SourceError(f"Keras cannot load it: {' '.join(lines)[:300]}") from error
    return model


def graph_from_keras(model: "keras.Model") -> Graph:
    """Translate a model of layers, one by one.

    Args:
        model: Functional or Sequential, built; models inside it included.

    Returns:
        The graph, cleaned: inputs as the model has them, channels first inside.

    Raises:
        SourceError: if it is of another kind, or a layer is not known here.
    """
    weaver = Weaver()
    whole = _functional(model)
    taken: set[str] = set()
    inputs = [fresh_name(taken, _plain(value.name)) for value in whole.inputs]
    outputs = [fresh_name(taken, _plain(f"{key[0]}.output")) for key in _keys(whole, "output")]
    weaver.reserve(sorted(taken))
    fed = [
        weaver.input(name, np.dtype(str(value.dtype)), tuple(value.shape))
        for name, value in zip(inputs, whole.inputs, strict=True)
    ]
    made = _walk(weaver, whole, fed)
    told: list[tuple[str, np.dtype[np.generic], Shape]] = []
    for name, tensor, value in zip(outputs, made, whole.outputs, strict=True):
        weaver.output(name, tensor)
        told.append((name, np.dtype(str(value.dtype)), tensor.shape))
    return clean(weaver.graph(told))


def _functional(model: "keras.Model") -> "keras.Model":
    """Return a model as one of layers whose connections are known.

    Raises:
        SourceError: if they are not.
    """
    import keras

    if not getattr(model, "inputs", None):
        raise SourceError(
            f"{type(model).__name__} {model.name!r} is no graph of layers: export it to ONNX, "
            "model.export(path, format='onnx')"
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs)
    return model


def _keys(model: "keras.Model", side: str) -> list[_Key]:
    """Return (layer, call, number) of a model's inputs or outputs, in order."""
    return [
        (str(name), int(call), int(number))
        for name, call, number in _triples(model.get_config()[f"{side}_layers"])
    ]


def _triples(value: object) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value[0], value[1], int(value[2])
        else:
            for item in value:
                yield from _triples(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One use of a layer: what it is given, numbers among it."""

    layer: str
    number: int
    args: Any
    kwargs: Mapping[str, Any]

    def reads(self) -> list[_Key]:
        return [key for key, _ in _references([self.args, dict(self.kwargs)])]


def _references(value: object) -> Iterator[tuple[_Key, Shape]]:
    """Yield (layer, call, number) and shape of each value that arguments name."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            told = value["config"]
            name, call, number = told["keras_history"]
            yield (str(name), int(call), int(number)), tuple(told["shape"])
        else:
            for item in value.values():
                yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)


def _walk(weaver: Weaver, model: "keras.Model", inputs: list[Tensor]) -> list[Tensor]:
    """Translate a model's layers in an order in which they can run.

    Raises:
        SourceError: if there is none, or a layer is not known here.
    """
    config = model.get_config()
    described = {entry["config"]["name"]: entry for entry in config["layers"]}
    calls = [
        _Call(layer=name, number=i, args=node["args"], kwargs=node["kwargs"])
        for name, entry in described.items()
        for i, node in enumerate(entry["inbound_nodes"])
    ]
    shapes = {key: shape for call in calls for key, shape in _references([call.args, call.kwargs])}
    outputs = _keys(model, "output")
    shapes |= {key: tuple(v.shape) for key, v in zip(outputs, model.outputs, strict=True)}
    values = dict(zip(_keys(model, "input"), inputs, strict=True))
    layers = {layer.name: layer for layer in model.layers}
    waiting = calls
    while waiting and not all(key in values for key in outputs):
        ready = [call for call in waiting if all(key in values for key in call.reads())]
        if not ready:
            raise SourceError(f"model {model.name!r}: its layers wait for one another")
        waiting = [call for call in waiting if call not in ready]
        for call in ready:
            entry = described[call.layer]
            made = _translate(weaver, entry, layers.get(call.layer), call, values, shapes)
            values |= {(call.layer, call.number, i): tensor for i, tensor in enumerate(made)}
    return [values[key] for key in outputs]


def _translate(
    weaver: Weaver,
    entry: Mapping[str, Any],
    layer: Any,
    call: _Call,
    values: Mapping[_Key, Tensor],
    shapes: Mapping[_Key, Shape],
) -> list[Tensor]:
    kind = entry["class_name"]
    inputs = [values[key] for key in call.reads()]
    if kind in {"Functional", "Model", "Sequential"}:
        return _walk(weaver, _functional(layer), inputs)
    rule = LAYERS.get(kind)
    if rule is None:
        raise SourceError(
            f"layer {call.layer!r} is a {kind}: not known here; export the model to ONNX, "
            "model.export(path, format='onnx')"
        )
    weights: list[Array] = [] if layer is None else layer.get_weights()
    shape = shapes.get((call.layer, call.number, 0))
    weaver.hint = _plain(call.layer)
    return [
        rule(
            KerasStep(
                kind=kind,
                name=call.layer,
                weaver=weaver,
                inputs=inputs,
                args=call.args,
                kwargs=call.kwargs,
                config=entry["config"],
                weights=[np.asarray(weight, dtype=np.float32) for weight in weights],
                shape=inputs[0].shape if shape is None and inputs else shape or (),
            )
        )
    ]


def _plain(name: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in name)[:150] or "value"


if __name__ == "__main__":
    sys.exit(main())
