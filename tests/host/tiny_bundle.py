"""The tiny bundle in tests/data: a random model that runs, for tests without host packages."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from tests.models import DECODER, memory_model

from onhand.core.bundle import stage_bundle
from onhand.core.decoder import DecoderLayer
from onhand.core.progress import Quiet
from onhand.host.calibrate import InputStatistics
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize

__all__ = ["PLACE", "make_tiny_bundle"]

PLACE = Path(__file__).parents[1] / "data" / "tiny-bundle"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def make_tiny_bundle(out: Path) -> None:
    """Write the bundle: int4 with an int8 embedding, int8 beside it; the same bytes every time.

    Args:
        out: the bundle's folder; must not exist.
    """
    layer = DecoderLayer(n_heads=2, n_kv_heads=1, head_dim=16, mlp_width=64)
    model = memory_model(replace(DECODER, width=32, layers=(layer, layer), context=256))
    texts = {
        "chat_template.jinja": TEMPLATE,
        "tokenizer_config.json": json.dumps({"bos_token": "<s>", "eos_token": "</s>"}),
        "generation_config.json": json.dumps({"eos_token_id": 1, "temperature": 0.7}),
    }
    files = {name: text.encode() for name, text in texts.items()}
    transforms = {
        "int4": Quantize(method="rtn", symmetric=False, embed_bits=8),
        "int8": Quantize(method="rtn", bits=8, symmetric=False),
    }
    with stage_bundle(out) as staged:
        pack_bundle(
            replace(model, files={**model.files, **files}),
            plan_variants(model.decoder, transforms),
            InputStatistics(),
            staged,
            accuracy_level=0,
            provenance={"source_sha256": model.sha256},
            threads=1,
            progress=Quiet(),
        )


if __name__ == "__main__":
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.parent.mkdir(exist_ok=True)
    make_tiny_bundle(PLACE)
    total = sum(path.stat().st_size for path in PLACE.iterdir())
    sys.stdout.write(f"{PLACE}: {total} bytes\n")
