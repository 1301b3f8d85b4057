"""Methods on a lesson in ONNX Runtime, beside the same lesson in numpy."""

from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import C, D, write_bundle
from tests.device.learning.methods.models import HeadTeachable, latents
from tests.device.learning.methods.sessions import batches, session

from onhand.device.learning.graph import open_lesson
from onhand.device.learning.methods.choosing import make_method
from onhand.device.learning.methods.growing import grow_head
from onhand.device.learning.methods.options import MethodOptions

OPTIONS = MethodOptions(replayed=4, fisher_examples=8, ewc_strength=1.0)


@pytest.mark.parametrize("name", ["der+++ewc", "lwf", "er-ace", "prototypes"])
def test_a_graph_learns_as_numpy_does(name: str, tmp_path: Path) -> None:
    """Two sessions, the second with a class more; only sums of float32 are in another order."""
    plain = HeadTeachable(D, C)
    opened = open_lesson(write_bundle(tmp_path / "bundle"), threads=1)
    found = []
    for teachable, prefix in ((plain, ""), (opened, "head.")):
        rng = np.random.default_rng(0)
        method = make_method(name, teachable.lesson, rng=rng, options=OPTIONS)
        values = {
            f"{prefix}{key}": np.full_like(value, 0.1) for key, value in plain.start().items()
        }
        for width in (C, C + 1):
            data = latents([*range(width)] * 6, width=max(D, width))
            data["latent"] = np.ascontiguousarray(data["latent"][:, :D])
            values = session(
                method,
                teachable,
                grow_head(teachable.lesson, values, width),
                list(batches(data, 6, epochs=2, seed=1)),
                width=width,
                known=C,
            )
        found.append({key.removeprefix(prefix): value for key, value in values.items()})
    opened.close()

    for key, value in found[0].items():
        np.testing.assert_allclose(found[1][key], value, rtol=2e-3, atol=2e-4)
