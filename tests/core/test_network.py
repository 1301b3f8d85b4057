"""What a manifest may say of a network, and what it may not."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from onhand.core.detection import Detection, detection_from_json
from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed, SoundFeed, TextFeed, feed_from_json, feed_to_json
from onhand.core.manifest import NETWORK, Manifest, parse_manifest, render_manifest
from onhand.core.network import ArrayInfo, Network, network_from_json

IMAGE = ArrayInfo(name="x", dtype="float32", shape=(None, 3, 8, 8))
SCORES = ArrayInfo(name="y", dtype="float32", shape=(None, 4))
NETWORKS = [
    Network(task="features", inputs=(IMAGE,), outputs=(SCORES,), n_parameters=0),
    Network(
        task="image-classification",
        inputs=(IMAGE,),
        outputs=(SCORES,),
        n_parameters=7,
        feed=PictureFeed(height=8, width=8, short_side=9, mean=(1.0, 2.0, 3.0)),
        n_labels=4,
    ),
    Network(
        task="audio-classification",
        inputs=(IMAGE,),
        outputs=(SCORES,),
        n_parameters=7,
        feed=SoundFeed(rate=16000, n_samples=16000, features="mfcc"),
    ),
    Network(
        task="text-embedding",
        inputs=(IMAGE,),
        outputs=(SCORES,),
        n_parameters=7,
        feed=TextFeed(max_tokens=128, types=""),
    ),
    Network(
        task="detection",
        inputs=(IMAGE,),
        outputs=(SCORES,),
        n_parameters=7,
        detection=Detection(layout="rows", objectness=True, scores="logits", least_score=0.1),
    ),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.task)
def test_what_is_written_is_read(network: Network, with_files: Manifest) -> None:
    """Alone, and in a manifest."""
    table = json.loads(json.dumps(network.to_json()))
    variants = {n: replace(v, matrices={}) for n, v in with_files.variants.items()}
    manifest = replace(with_files, kind=NETWORK, model=network, variants=variants)

    assert network_from_json(table) == network
    assert parse_manifest(render_manifest(manifest), where="tiny") == manifest


def test_a_bundle_says_what_it_is_not(with_files: Manifest) -> None:
    """Code for one kind gets one sentence from the other."""
    network = replace(with_files, kind=NETWORK, model=NETWORKS[0])

    with pytest.raises(InputError, match="is a network for features, this needs a language model"):
        _ = network.decoder
    with pytest.raises(InputError, match="is a language model, this needs another network"):
        _ = with_files.network
    assert network.network is NETWORKS[0]


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(task="magic"), "task is 'magic', must be one of image-classification"),
        (lambda t: t.update(more=1), "network: unknown key 'more'"),
        (lambda t: t.update(n_labels=-1), "n_labels is -1"),
        (lambda t: t.pop("n_parameters"), "n_parameters is None"),
        (lambda t: t.update(inputs=[]), "inputs must be a list of 1 to 256 arrays"),
        (lambda t: t.update(outputs={}), "outputs must be a list"),
        (lambda t: t["inputs"].append(t["inputs"][0]), "inputs names an array twice"),
        (lambda t: t["inputs"][0].update(name="a\nb"), "must be a text of one line"),
        (lambda t: t["inputs"][0].update(dtype="float99"), "dtype is 'float99'"),
        (lambda t: t["inputs"][0].update(shape=[1] * 9), "must be a list of sizes"),
        (lambda t: t["inputs"][0].update(shape=[0]), "a size is 0, must be a whole number"),
        (lambda t: t["inputs"][0].update(shape=[True]), "a size is True"),
        (lambda t: t.update(feed=3), "feed: must be a JSON object, found int"),
        (lambda t: t.update(feed={"kind": "smell"}), "kind is 'smell', must be one of picture"),
        (lambda t: t.update(feed={"kind": "text"}), "feed: .*missing 1 required"),
        (lambda t: t["feed"].update(other=1), "feed: unknown key 'other'"),
        (lambda t: t["feed"].update(height=0), "height is 0"),
        (lambda t: t["feed"].update(short_side=7), "short_side is 7, must be 0 or at least 8"),
        (lambda t: t["feed"].update(resize="magic"), "resize is 'magic'"),
        (lambda t: t["feed"].update(mean=[1]), "mean is \\(1,\\), must be 3 finite numbers"),
        (lambda t: t["feed"].update(std=[1, 2, True]), "std is \\(1, 2, True\\), must be 3 finite"),
        (lambda t: t["feed"].update(std=[1, 2, 0]), "std is \\(1, 2, 0\\), must be above 0"),
    ],
)
def test_a_description_that_lies_is_refused(change: Change, message: str) -> None:
    """With one sentence."""
    table = json.loads(json.dumps(NETWORKS[1].to_json()))
    change(table)

    with pytest.raises(InputError, match=message):
        network_from_json(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0}, "rate is 0"),
        ({"features": "taste"}, "features is 'taste'"),
        ({"mean": "x"}, "mean is 'x', must be a number"),
        ({"std": 0.0}, "frame, hop and std must be above 0"),
        ({"low_hz": 5000.0}, "low_hz below high_hz"),
        ({"frame_s": 1.0}, "a frame of 1.0 s does not fit n_fft 512"),
        ({"n_coefficients": 41}, "41 coefficients of 40 bands"),
        ({"hop_s": 1e-6}, "hop_s is 1e-06, shorter than a sample"),
    ],
)
def test_a_sound_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    """What no features could be made of."""
    whole = feed_to_json(SoundFeed(rate=16000, n_samples=16000, features="mfcc")) | change

    with pytest.raises(InputError, match=message):
        feed_from_json(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"ids": ""}, "ids is empty"),
        ({"mask": 3}, "an input is called 3"),
    ],
)
def test_a_text_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    """Names are texts, and there are tokens."""
    with pytest.raises(InputError, match=message):
        feed_from_json(feed_to_json(TextFeed(max_tokens=8)) | change)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "layout is missing, must be one of cells, rows, columns, boxes-scores"),
        ({"layout": "grid"}, "layout is 'grid', must be one of cells"),
        ({"layout": "rows", "box": "corners"}, "unknown key 'box'"),
        ({"layout": "rows", "boxes": "xywh"}, "boxes is 'xywh', must be one of centres"),
        ({"layout": "rows", "unit": "cm"}, "unit is 'cm'"),
        ({"layout": "rows", "scores": 3}, "scores is 3"),
        ({"layout": "rows", "objectness": "yes"}, "objectness is 'yes', must be true or false"),
        ({"layout": "rows", "background": 1}, "background is 1, must be true or false"),
        ({"layout": "rows", "least_score": 2}, "least_score is 2, must be from 0 to 1"),
        ({"layout": "rows", "most_overlap": float("nan")}, "most_overlap is nan"),
        ({"layout": "rows", "most_boxes": 0}, "most_boxes is 0, must be a whole number"),
        ({"layout": "cells", "scores": "logits"}, "the layout 'cells' says scores; leave it out"),
        ({"layout": "boxes-scores", "objectness": True}, "'boxes-scores' has no objectness"),
        ({"layout": "rows", "least_score": "x"}, "least_score is 'x', must be from 0 to 1"),
        ([], "must be a JSON object"),
    ],
)
def test_attack_boxes_that_cannot_be(given: object, message: str) -> None:
    """What is said of a detector's outputs is known and within bounds."""
    with pytest.raises(InputError, match=f"^detection: .*{re.escape(message)}"):
        detection_from_json(given)


@pytest.mark.parametrize("layout", ["cells", "rows", "columns", "boxes-scores"])
def test_boxes_are_read_back(layout: str) -> None:
    """As they were written, of every layout."""
    read = detection_from_json({"layout": layout, "least_score": 0.25})

    assert (read.layout, read.least_score) == (layout, 0.25)
    assert detection_from_json(read.to_json()) == read
