"""Make a small SavedModel in a folder, with what TensorFlow computes."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main() -> None:
    """A convolution, a norm written out, a mean and a dense layer; and a folder with no graph."""
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(7)

    class Net(tf.Module):  # type: ignore[misc]
        """As a user would write it."""

        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(rng.standard_normal((3, 3, 3, 4)).astype(np.float32))
            self.gain = tf.Variable(rng.uniform(0.5, 2, 4).astype(np.float32))
            self.matrix = tf.Variable(rng.standard_normal((4, 5)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec((None, 9, 7, 3), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: object) -> object:
            x = tf.nn.conv2d(x, self.kernel, strides=2, padding="SAME") * self.gain + 0.1
            x = tf.reduce_mean(tf.nn.relu6(x), axis=[1, 2])
            return tf.nn.softmax(x @ self.matrix)

    net = Net()
    tf.saved_model.save(net, str(folder / "net"))
    x = rng.standard_normal((3, 9, 7, 3)).astype(np.float32)
    np.savez(folder / "net.npz", x=x, y=net(x).numpy())


if __name__ == "__main__":
    main()
