"""Make small Keras models in a folder, with what Keras predicts and what our graphs are."""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import layers

from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.sources.keras_export import graph_from_keras

NAMES = ("activations", "embedding", "nested", "one-place", "pictures", "sounds")


def pictures() -> keras.Model:
    """Convolutions of every kind, joined and parted."""
    x = given = keras.Input((11, 9, 3), name="picture")
    x = layers.Rescaling([0.5, 0.4, 0.3], offset=-0.1)(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.ZeroPadding2D(((1, 2), (0, 1)))(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="swish")(x)
    left = layers.MaxPooling2D(2, padding="same")(x)
    right = layers.AveragePooling2D(2, padding="same")(x)
    x = layers.Concatenate()([left, right])
    gate = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Dense(12, activation="sigmoid")(layers.Dense(3, activation="relu")(gate))
    x = layers.Multiply()([x, gate])
    x = layers.Add()([x, layers.Conv2D(12, 1, groups=3, dilation_rate=1)(x)])
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x)
    x = layers.LeakyReLU(negative_slope=0.2)(layers.PReLU(shared_axes=[1, 2])(x))
    x = layers.UpSampling2D(2, interpolation="bilinear")(layers.UpSampling2D(2)(x))
    x = layers.Cropping2D(((1, 0), (2, 1)))(x)
    x = layers.BatchNormalization()(layers.Dropout(0.5)(x))
    x = layers.Dense(4, activation="softmax")(layers.Flatten()(x))
    return keras.Model(given, x)


def sounds() -> keras.Model:
    """One dimension of place, in a row."""
    return keras.Sequential([
        keras.Input((20, 3), name="wave"),
        layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu"),
        layers.BatchNormalization(),
        layers.SeparableConv1D(8, 3),
        layers.MaxPooling1D(2),
        layers.LayerNormalization(),
        layers.Dense(5, activation="gelu"),
        layers.GlobalMaxPooling1D(),
        layers.RepeatVector(2),
        layers.Reshape((5, 2)),
        layers.Permute((2, 1)),
        layers.Softmax(),
    ])  # fmt: skip


def nested() -> keras.Model:
    """A model in a model, used twice; operations between layers; two inputs and outputs."""
    inner = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(3)], name="inner")
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    both = inner(left) * 2.0 + inner(right) - 1.0
    norm = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 0.5])(both)
    most = layers.Maximum()([norm, layers.Average()([both, norm])])
    return keras.Model([left, right], [most, layers.Subtract()([both, norm])])


def activations() -> keras.Model:
    """Every activation by name."""
    given = keras.Input((6,))
    names = ["elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "log_softmax",
             "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign",
             "tanh", "linear"]  # fmt: skip
    parts = [layers.Activation(name)(given) for name in names]
    parts += [layers.ELU(0.5)(given), layers.ReLU(3.0, negative_slope=0.1)(given)]
    return keras.Model(given, layers.Concatenate(axis=1)(parts))


def embedding() -> keras.Model:
    """Whole numbers in."""
    return keras.Sequential([
        keras.Input((7,), dtype="int32"),
        layers.Embedding(10, 4),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2, use_bias=False),
    ])  # fmt: skip


def one_place() -> keras.Model:
    """The last pool leaves one place: nothing is to be turned behind it."""
    return keras.Sequential([
        keras.Input((6, 6, 2)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.AveragePooling2D(4),
        layers.Flatten(),
        layers.Dense(3),
    ])  # fmt: skip


def main() -> None:
    """Write each model, its inputs, outputs and graph."""
    folder = Path(sys.argv[1])
    made = (activations, embedding, nested, one_place, pictures, sounds)
    for name, make in zip(NAMES, made, strict=True):
        keras.utils.set_random_seed(7)
        rng = np.random.default_rng(7)
        model = make()
        # Statistics as training would leave them.
        model.set_weights([np.abs(w) + rng.uniform(0.1, 0.5, w.shape).astype(w.dtype)
                           if w.ndim == 1 else w for w in model.get_weights()])  # fmt: skip
        fed = [
            rng.integers(0, 9, (2, *value.shape[1:])).astype(np.int32)
            if value.dtype == "int32"
            else rng.standard_normal((2, *value.shape[1:])).astype(np.float32)
            for value in model.inputs
        ]
        found = model.predict(fed, verbose=0)
        outs = found if isinstance(found, list) else [found]
        arrays = {f"in{i}": a for i, a in enumerate(fed)} | {
            f"out{i}": a for i, a in enumerate(outs)
        }
        np.savez(folder / f"{name}.npz", **arrays)
        (folder / f"{name}.onnx").write_bytes(model_bytes(graph_from_keras(model)))
        model.save(folder / f"{name}.keras")


if __name__ == "__main__":
    main()
