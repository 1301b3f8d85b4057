"""Networks from Python: files, pictures and texts in, answers out."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.network_bundles import Drawing, Op, classifier, info, pack

import onhand
from onhand.core.errors import InputError, ShapeError
from onhand.core.feed import PictureFeed, TextFeed

WORDS = json.dumps({
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {
        "type": "WordLevel",
        "vocab": {"[UNK]": 0, "hello": 1, "you": 2},
        "unk_token": "[UNK]",
    },
}).encode()


def test_a_picture_is_classified(tmp_path: Path) -> None:
    """From a file and from memory alike; the engine is chosen once and named."""
    feed = PictureFeed(height=12, width=12)
    bundle = pack(
        tmp_path / "net",
        {"fp32": classifier(np.random.default_rng(0))},
        task="image-classification",
        feed=feed,
    )
    pixels = np.random.default_rng(1).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    np.save(tmp_path / "p.npy", pixels)

    with onhand.open_network(bundle.root, home=tmp_path / "home", threads=1) as session:
        found = session.classify(tmp_path / "p.npy", top=2)
        again = session.classify(pixels, top=2)
        with pytest.raises(InputError, match="takes no texts"):
            session.embed(["hello"])
        with pytest.raises(InputError, match="top is -1"):
            session.classify(pixels, top=-1)
        with pytest.raises(InputError, match=r"\(2, 3\) are of several examples"):
            session.likeliest({"y": np.zeros((2, 3), np.float32)})
        name = session.network.inputs[0].name
        with pytest.raises(ShapeError, match="is a list, must be an array"):
            session.run({name: [[1.0]]})  # type: ignore[dict-item]

    assert found == again
    assert found[0].share >= found[1].share
    assert session.engine_name in {"onnx", "openvino"}


def test_texts_become_vectors(tmp_path: Path) -> None:
    """A vector for each; what is no picture is refused, and so are classes."""
    table = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    drawing = Drawing(
        ops=[
            Op(kind="Gather", inputs=["table", "ids"], outputs=["rows"]),
            Op(
                kind="ReduceMean",
                inputs=["rows"],
                outputs=["y"],
                attributes={"axes": [1], "keepdims": 0},
            ),
        ],
        constants={"table": table},
        inputs=(info("ids", None, None, dtype="int64"),),
        outputs=(info("y", None, 4),),
    )
    feed = TextFeed(max_tokens=3, ids="ids", mask="", types="")
    bundle = pack(
        tmp_path / "net",
        {"fp32": drawing},
        task="text-embedding",
        feed=feed,
        files={"tokenizer.json": WORDS},
    )

    with onhand.open_network(bundle.root, engine="onnx", home=tmp_path / "home") as session:
        vectors = session.embed(["hello you", "you you"])
        cut = session.read("you you you hello").cut
        with pytest.raises(InputError, match="put it into brackets"):
            session.embed("hello")
        with pytest.raises(InputError, match="text 1 is of type bytes"):
            session.embed(["hello", b"you"])  # type: ignore[list-item]
        with pytest.raises(InputError, match="has no classes"):
            session.likeliest({"y": vectors})
        with pytest.raises(InputError, match="which this network does not take"):
            session.classify(np.zeros((2, 2, 3), np.uint8))

    np.testing.assert_allclose(vectors, [table[1:].mean(axis=0), table[2]], rtol=1e-6)
    assert cut == (True,)
    assert session.max_tokens == 3
