"""What an encoder learned leaves as an adapter of its checkpoint, and comes back."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.host.networks.tiny_encoders import save_encoder, save_modules, texts

from onhand.cli.main import main
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle, stage_bundle
from onhand.core.progress import Quiet
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors
from onhand.device.learning.adapters import export_adapter
from onhand.device.learning.importing import Judges, import_learned
from onhand.device.learning.in_use import versions_of, whole_values
from onhand.device.learning.lesson_files import read_start
from onhand.device.learning.modules import MODULES
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.learning.verdict import Verdict
from onhand.device.networks.opening import named_engine
from onhand.host.learning.wanted import parse_learnable
from onhand.host.networks.clean import clean
from onhand.host.networks.graph import Graph
from onhand.host.networks.learnable import Source, with_lesson
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.passes.base import NetworkPass, PassResult, Workbench
from onhand.host.networks.passes.fuse import Fuse
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.samples import Samples
from onhand.host.networks.sources.encoder import EncoderSource

FUSED = Fuse(products=True, activations=False, norms=False, attention=False)
SMOOTHED = (FUSED, Smooth(alphas=(0.5,)))
# Float32 in another order: sums of hundreds of products.
CLOSE = 2e-4


def examples() -> Samples:
    """Texts that calibrate."""
    return Samples(feeds=[{name: row[:1] for name, row in texts(length=9).items()}] * 4)


def passed(graph: Graph, passes: tuple[NetworkPass, ...], task: str) -> Graph:
    """The graph after some passes."""
    from onhand.device.probe import current_profile

    bench = Workbench(
        original=graph,
        calibration=examples(),
        task=task,
        threads=1,
        profile=current_profile(),
        progress=Quiet(),
    )
    for one in passes:
        graph = one.apply(graph, bench).graph
    return graph


def built(
    place: Path, source: Path, task: str, learnable: str, *passes: NetworkPass
) -> tuple[Bundle, list[str]]:
    """A bundle of a folder that can learn, and what its report would note."""
    model: NetworkModel = EncoderSource().load(str(source), task=task)
    original = clean(model.graph)
    graph = passed(original, passes, task)
    notes: object = []
    with stage_bundle(place) as staged:
        packed = pack_network(model, describe(model, task), {"only": graph}, staged, provenance={})
        said = with_lesson(
            packed,
            parse_learnable(learnable),
            Source(model, original, Samples(feeds=[]), 1),
            Quiet(),
        )
        notes = said["notes"]
    assert isinstance(notes, list)
    return read_bundle(place), notes


def learn(bundle: Bundle, home: Path, seed: int = 0) -> dict[str, FloatArray]:
    """A version of random values is in use."""
    random = np.random.default_rng(seed)
    versions = versions_of(bundle, home)
    start = read_start(bundle, versions.lesson)
    values = {
        name: (value + random.normal(0, 0.3, value.shape)).astype(np.float32)
        for name, value in start.items()
    }
    made = versions.propose(
        values,
        start=start,
        parent=0,
        method="sgd",
        counts={},
        verdict=Verdict(is_accepted=True),
    )
    versions.accept(made.number)
    return values


def answers(bundle: Bundle, home: Path) -> dict[str, FloatArray]:
    """What the version in use answers."""
    used, _ = network_in_use(bundle, home)
    loaded = named_engine("onnx").open(used, threads=1)
    return loaded.run(texts(length=9))


def added_to(model: Any, adapter: Path) -> Any:
    """The model with an adapter, by PEFT itself."""
    import peft

    # Of its own calls of transformers.
    warnings.simplefilter("ignore", FutureWarning)
    return peft.PeftModel.from_pretrained(model, str(adapter)).eval()


def computed(model: Any) -> Any:
    """What transformers computes of the texts."""
    import torch

    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in texts(length=9).items()})


@pytest.mark.parametrize("passes", [(), SMOOTHED], ids=["as-it-is", "fused-and-smoothed"])
def test_an_adapter_adds_to_the_checkpoint_what_was_learned(
    passes: tuple[NetworkPass, ...], tmp_path: Path, home: Path
) -> None:
    """Joined matrices are several there, and what the build scaled is scaled back."""
    model = save_encoder(tmp_path / "bert", "bert")
    save_modules(tmp_path / "bert", normalize=False)
    bundle, notes = built(
        tmp_path / "b", tmp_path / "bert", "text-embedding", "lora,rank=2", *passes
    )
    learn(bundle, home)

    made = export_adapter(bundle.root, tmp_path / "out", home=home)

    assert made.modules == 12
    assert len(notes) == 1
    states = computed(added_to(model, tmp_path / "out")).last_hidden_state.numpy()
    mask = texts(length=9)["attention_mask"][:, :, None]
    expected = (states * mask).sum(axis=1) / mask.sum(axis=1)
    np.testing.assert_allclose(answers(bundle, home)["embedding"], expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_head_of_the_checkpoint_goes_along(family: str, tmp_path: Path, home: Path) -> None:
    """As a module that is saved whole, under the names of a model with a head."""
    kind = "AutoModelForSequenceClassification"
    model = save_encoder(tmp_path / "m", family, kind=kind, id2label={0: "no", 1: "yes", 2: "so"})
    bundle, _ = built(
        tmp_path / "b", tmp_path / "m", "text-classification", "lora,rank=2", *SMOOTHED
    )
    learn(bundle, home)

    export_adapter(bundle.root, tmp_path / "out", home=home)

    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["classifier"])
    if family == "bert":  # the helper's texts have kinds, which the other family has not
        expected = computed(added_to(model, tmp_path / "out")).logits.numpy()
        np.testing.assert_allclose(
            answers(bundle, home)["logits"], expected, rtol=CLOSE, atol=CLOSE
        )


def test_what_left_an_int8_encoder_comes_back(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands; the new version answers as the one that left."""
    save_encoder(tmp_path / "bert", "bert")
    save_modules(tmp_path / "bert")
    passes = (*SMOOTHED, QuantizeNetwork(activations="symmetric"))
    task, wish = "text-embedding", "lora,rank=2,classes=cup+lamp"
    bundle, _ = built(tmp_path / "b", tmp_path / "bert", task, wish, *passes)
    learn(bundle, home)
    before = answers(bundle, home)
    out = str(tmp_path / "out")

    assert main(["export", str(bundle.root), "--to", "peft", "-o", out]) == 0
    assert "as 12 of the original, rank 2" in capsys.readouterr().out
    assert main(["rollback", str(bundle.root), "--to", "base"]) == 0
    assert main(["versions", str(bundle.root), "--import", out, "--unjudged"]) == 0
    assert "version 2, and in use; no gate judged it" in capsys.readouterr().err
    # Factors are scaled out and in again: float32 rounds twice.
    for name, array in answers(bundle, home).items():
        np.testing.assert_allclose(array, before[name], rtol=1e-3, atol=1e-3)


def test_other_names_of_the_same_layers(tmp_path: Path, home: Path) -> None:
    """An adapter of the encoder alone fits a bundle whose checkpoint has a head, which stays."""
    save_encoder(tmp_path / "m", "bert", kind="AutoModelForSequenceClassification", num_labels=3)
    task, wish = "text-classification", "lora,rank=2"
    bundle, _ = built(tmp_path / "b", tmp_path / "m", task, wish, FUSED)
    learn(bundle, home)
    before = answers(bundle, home)["logits"]
    export_adapter(bundle.root, tmp_path / "out", home=home)
    file = open_safetensors(tmp_path / "out" / "adapter_model.safetensors")
    tensors = {
        name.replace(".bert.", "."): np.array(file.view(name))
        for name in file.tensors
        if "classifier" not in name
    }
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    config["target_modules"] = ["query", "key", "value", "dense"]
    write_files(tmp_path / "alone", config | {"modules_to_save": None}, tensors)

    import_learned(bundle.root, tmp_path / "alone", Judges(is_waived=True), home=home)

    np.testing.assert_allclose(answers(bundle, home)["logits"], before, rtol=1e-5, atol=1e-5)


def write_files(folder: Path, config: dict[str, object], tensors: dict[str, np.ndarray]) -> Path:
    """An adapter's two files."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    specs = {name: TensorSpec(dtype="F32", shape=array.shape) for name, array in tensors.items()}
    with SafetensorsWriter(folder / "adapter_model.safetensors", specs) as writer:
        for name, array in tensors.items():
            writer.write(name, array.astype(np.float32))
        writer.close()
    return folder


def test_what_has_no_layout_says_so(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A last block leaves as plain tensors, and comes back to the bit."""
    save_encoder(tmp_path / "bert", "bert")
    save_modules(tmp_path / "bert")
    task, wish = "text-embedding", "last-block,classes=cup+lamp"
    bundle, _ = built(tmp_path / "b", tmp_path / "bert", task, wish)
    values = learn(bundle, home)
    out, root = str(tmp_path / "out"), str(bundle.root)

    assert main(["export", root, "--to", "peft", "-o", out]) == 2
    assert "learns last-block, for which PEFT has no layout" in capsys.readouterr().err
    assert main(["export", root, "--to", "safetensors", "-o", out]) == 0
    assert "tensors" in capsys.readouterr().out
    assert main(["versions", root, "--import", out, "--unjudged"]) == 0
    versions = versions_of(bundle, home)
    for name, array in whole_values(bundle, versions, versions.find(2)).items():
        np.testing.assert_array_equal(array, values[name])


class Shuffled:
    """A pass that puts every matrix's weights elsewhere in it."""

    name: ClassVar[str] = "shuffled"

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Shuffle."""
        random = np.random.default_rng(0)
        constants = {
            name: random.permuted(array) if array.ndim == 2 else array
            for name, array in graph.constants.items()
        }
        return PassResult(graph=replace(graph, constants=constants), changed={}, kept={})


def test_changed_weights_have_no_checkpoint(tmp_path: Path) -> None:
    """A bundle of other matrices than its checkpoint's names none of its layers."""
    save_encoder(tmp_path / "bert", "bert")
    save_modules(tmp_path / "bert")

    task, wish = "text-embedding", "lora,rank=2"
    bundle, notes = built(tmp_path / "b", tmp_path / "bert", task, wish, Shuffled())

    assert MODULES not in bundle.manifest.files
    assert "cannot leave as a PEFT adapter" in notes[1]
    assert "apart from its checkpoint's: the build changed it" in notes[1]
