"""Quantise an ONNX encoder with NNCF, in an environment that has it: the benchmark's peer.

    python nncf_peer.py MODEL.onnx EXAMPLES.npz OUT.xml

EXAMPLES holds the arrays of each example, as "NUMBER/INPUT". The settings are those that NNCF's
documentation gives for transformers.
"""

import sys
from typing import Any


def main() -> None:
    """Quantise and write OpenVINO's own files."""
    import nncf
    import numpy as np
    import openvino

    source, examples, out = sys.argv[1:]
    feeds: dict[str, dict[str, Any]] = {}
    with np.load(examples) as file:
        for name in file.files:
            number, _, value = name.partition("/")
            feeds.setdefault(number, {})[value] = file[name]
    made = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(list(feeds.values())),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(feeds),
    )
    openvino.save_model(made, out, compress_to_fp16=False)


if __name__ == "__main__":
    main()
