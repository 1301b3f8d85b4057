"""Write a SavedModel as a LiteRT file: `python -m onhand.host.networks.sources.tensorflow_export`.

TensorFlow's own converter folds, names and shapes; it takes gigabytes and seconds, and ends with
this process.
"""

import json
import os
import sys
from pathlib import Path

from onhand.core.errors import SourceError

__all__ = ["main"]


def main() -> int:
    """Read the folder IN, write the float file OUT, and print an empty object; 1 if it cannot."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    source, target = sys.argv[1:3]
    try:
        Path(target).write_bytes(_converted(source))
    except SourceError as error:
        sys.stderr.write(f"\n{error}\n")
        sys.stderr.flush()
        # What the converter left running must not hold the process up.
        os._exit(1)
    sys.stdout.write(f"\n{json.dumps({})}")
    return 0


def _converted(source: str) -> bytes:
    import tensorflow as tf

    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(source)
        # Built-in operators alone: nothing of TensorFlow's own, which no reader here would know.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        content: bytes = converter.convert()
    except Exception as error:  # the converter lets errors of any kind through
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[0][:300] if lines else repr(error)
        raise SourceError(f"{source}: TensorFlow cannot convert it: {said}") from error
    return content


if __name__ == "__main__":
    sys.exit(main())
