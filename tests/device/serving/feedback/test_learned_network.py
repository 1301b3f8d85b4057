"""A real server, a real network, and a real process that teaches it from feedback."""

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
from tests.device.learning.bundles import (
    LABELS,
    N_PIXELS,
    C,
    D,
    head_graph,
    lesson_of_head,
    onnx_model,
    outside,
    trunk_graph,
    trunk_weights,
    write_tensors,
)
from tests.device.learning.test_taught import shown
from tests.device.serving.served import serving

from onhand.core.bundle import stage_bundle, write_manifest
from onhand.core.lesson import LESSON, render_lesson
from onhand.core.manifest import Manifest, Variant
from onhand.core.network import ArrayInfo, Network
from onhand.core.onnxwrite import WrittenNode, tensor_message
from onhand.device.learning.in_use import open_versions
from onhand.device.networks.session import open_session
from onhand.device.serving.assembling import opened_state
from onhand.device.serving.feedback.settings import LearningSettings
from onhand.device.serving.governor.setting import GovernorSettings
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.settings import ModelSettings, ServeSettings

QUICK = LearningSettings(
    enabled=True,
    method="naive",
    epochs=20,
    rate=0.05,
    least_examples=24,
    idle_s=0.0,
    retry_s=1000.0,
    cpu_share=1.0,
    lowest_battery=0.0,
)


def _scores(offset: int, *, tensors: Sequence[bytes], inputs: Sequence[str]) -> bytes:
    """The whole network; its head is given, or stands in it."""

    def node(kind: str, inputs: Sequence[str], output: str, **attributes: int) -> WrittenNode:
        return WrittenNode(kind=kind, inputs=inputs, output=output, attributes=attributes)

    head: dict[str, Sequence[int | None]] = {"head.weight": [None, D], "head.bias": [None]}
    return onnx_model(
        [
            node("MatMul", ["pixels", "frozen"], "seen"),
            node("Relu", ["seen"], "latent"),
            node("Gemm", ["latent", "head.weight", "head.bias"], "scores", transB=1),
        ],
        inputs={
            "pixels": ("float32", [None, N_PIXELS]),
            **{name: ("float32", head[name]) for name in inputs},
        },
        outputs={"scores": ("float32", [None, None if inputs else C])},
        tensors=[
            outside(
                "frozen",
                [N_PIXELS, D],
                file="weights.safetensors",
                offset=offset,
                length=N_PIXELS * D * 4,
            ),
            *tensors,
        ],
    )


def write_network(root: Path) -> Path:
    """A network of pixels that runs, and can learn its head."""
    zeros = {"head.weight": np.zeros((C, D), np.float32), "head.bias": np.zeros(C, np.float32)}
    with stage_bundle(root) as staged:
        places = write_tensors(staged / "weights.safetensors", {"frozen": trunk_weights()})
        offset = places["frozen"].offset
        write_tensors(staged / "learn.safetensors", zeros)
        constants = [tensor_message(name, value) for name, value in zeros.items()]
        lesson = replace(lesson_of_head(), answers="answers.onnx")
        for name, content in {
            "model.onnx": _scores(offset, tensors=constants, inputs=()),
            "answers.onnx": _scores(offset, tensors=(), inputs=tuple(zeros)),
            "trunk.onnx": trunk_graph(offset),
            "learn.onnx": head_graph(),
            "labels.txt": ("\n".join(LABELS) + "\n").encode(),
            LESSON: render_lesson(lesson),
        }.items():
            (staged / name).write_bytes(content)
        network = Network(
            task="image-classification",
            inputs=(ArrayInfo(name="pixels", dtype="float32", shape=(None, N_PIXELS)),),
            outputs=(ArrayInfo(name="scores", dtype="float32", shape=(None, C)),),
            n_parameters=N_PIXELS * D + C * D + C,
            n_labels=C,
        )
        variant = Variant(
            graph="model.onnx", weights=("weights.safetensors",), matrices={}, accuracy_level=0
        )
        manifest = Manifest(
            name="things",
            kind="network",
            version=1,
            default_variant="plain",
            variants={"plain": variant},
            model=network,
            files={},
            provenance={},
        )
        write_manifest(staged, manifest, hashes={})
    return root


def right(root: Path, home: Path, *, version: int | None = None) -> float:
    """How many things it tells apart that it was not shown."""
    with open_session(root, engine="onnx", threads=1, version=version, home=home) as session:
        found = 0
        for number in range(20):
            one = shown(number % 2, 1000 + number)
            pixels = np.load(io.BytesIO(one.picture))["pixels"]
            likely = session.likeliest(session.run({"pixels": pixels}), top=1)
            found += likely[0].label == one.answer
    return found / 20


@pytest.mark.slow
def test_a_network_learns_from_feedback_while_it_is_served(tmp_path: Path, home: Path) -> None:
    """From examples over HTTP to a version in use, by a process of its own; and back."""
    root = write_network(tmp_path / "things")
    before = right(root, home)
    settings = ServeSettings(
        models=(ModelSettings(bundle=str(root), engine="onnx", threads=1),),
        learning=QUICK,
        # It would wait until nobody else keeps this machine busy.
        governor=GovernorSettings(enabled=False),
        shelf=ShelfSettings(watch_s=0.05),
    )
    with (
        opened_state(settings, home=home, told=lambda _: None) as state,
        serving(state=state, settings=settings) as served,
    ):
        for number in range(24):
            one = shown(number % 2, number)
            fields = {"image": base64.b64encode(one.picture).decode(), "label": one.answer}
            reply = httpx2.post(f"{served.url}/v1/feedback", json=fields)
            assert reply.json()["outcome"] == "taken"
        end_s = time.monotonic() + 60
        learned: dict[str, object] = {}
        while (learned.get("version"), learned.get("last_verdict")) != (1, "accepted"):
            assert time.monotonic() < end_s, learned
            time.sleep(0.05)
            learned = httpx2.get(f"{served.url}/health").json()["learning"]["things"]
        listed = httpx2.get(f"{served.url}/v1/models/things").json()
    after = right(root, home)
    open_versions(root, home).rollback()

    assert learned["examples_waiting"] == 0
    assert listed["learned_version"] == 1
    assert before <= 0.5
    assert after == 1.0
    assert right(root, home) == before
    assert right(root, home, version=1) == after
