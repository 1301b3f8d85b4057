"""A real trained model, on real text: what the methods promise holds there."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from onhand.core.bundle import read_bundle
from onhand.core.measurement import Measurement
from onhand.core.progress import Quiet
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.text_files import parse_text_files
from onhand.host.calibrate import head_logits, run_original
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model
from onhand.host.texts import split_texts

TRANSFORMS = {
    "int8": Quantize(bits=8),
    "rtn": Quantize(method="rtn"),
    "clip": Quantize(),
    "rtn-asymmetric": Quantize(method="rtn", symmetric=False),
    "clip-asymmetric": Quantize(symmetric=False),
    "rtn-128": Quantize(method="rtn", group_size=128),
    "clip-128": Quantize(group_size=128),
}


@pytest.fixture(scope="module")
def figures(
    assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Mapping[str, Measurement]]:
    """Every transform of the model, judged in the real engine on held-out text."""
    model = load_model(str(assets / "tinystories-656k"))
    tokenizer = parse_text_files(model.files, where="tinystories").tokenizer
    path = assets / "tinystories-text" / "tinystories_sample.txt"
    texts = split_texts(tokenizer, path, model.decoder, max_tokens=16384)
    run = run_original(
        model,
        calibration=texts.calibration.sequences,
        heldout=texts.heldout.sequences,
        progress=Quiet(),
    )
    folder = tmp_path_factory.mktemp("tinystories")
    pack_bundle(
        model,
        plan_variants(model.decoder, TRANSFORMS),
        run.statistics,
        folder,
        accuracy_level=4,
        provenance={},
        threads=2,
        progress=Quiet(),
    )
    bundle = read_bundle(folder)
    found: dict[str, Mapping[str, Measurement]] = {}
    for name in TRANSFORMS:
        loaded = OnnxEngine().open(bundle, variant=name, threads=2)
        compared = compare_tokens(
            loaded,
            texts.heldout.sequences,
            run.hidden,
            head_logits(model),
            progress=Quiet(),
            what=name,
        )
        found[name] = quality_figures(compared, how="pytest")
    return found


@pytest.mark.slow
def test_int8_costs_at_most_three_thousandths_of_perplexity(
    figures: Mapping[str, Mapping[str, Measurement]],
) -> None:
    """Eight bits are as good as the original for all practical purposes."""
    assert figures["int8"]["perplexity_increase"].value <= 0.003


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "-asymmetric", "-128"])
def test_clip_is_better_than_rtn_at_equal_bits(
    figures: Mapping[str, Mapping[str, Measurement]], kind: str
) -> None:
    """By perplexity, divergence and agreement: the search pays on unseen text."""
    rtn, clip = figures[f"rtn{kind}"], figures[f"clip{kind}"]

    assert clip["perplexity"].value < rtn["perplexity"].value
    assert clip["kl_divergence"].value < rtn["kl_divergence"].value
    assert clip["top1_agreement"].value > rtn["top1_agreement"].value
