"""Vectors and classes over HTTP: by the official client, and by plain requests."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from tests.device.networks.test_session import WORDS
from tests.device.serving.served import Served, client_of, fake_model, serving
from tests.network_bundles import Drawing, Op, classifier, info, pack

from onhand.core.feed import PictureFeed, TextFeed
from onhand.device.serving.models.network import ServedNetwork
from onhand.device.serving.models.opening import open_served
from onhand.device.serving.settings import ModelSettings

TABLE = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def opened(bundle: Path, home: Path) -> ServedNetwork:
    made = open_served(ModelSettings(bundle=str(bundle), engine="onnx", threads=1), home=home)
    assert isinstance(made, ServedNetwork)
    return made


def words(place: Path) -> ServedNetwork:
    """The mean of two known vectors, of at most three words."""
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
        constants={"table": TABLE},
        inputs=(info("ids", None, None, dtype="int64"),),
        outputs=(info("y", None, 4),),
    )
    bundle = pack(
        place / "words",
        {"fp32": drawing},
        task="text-embedding",
        feed=TextFeed(max_tokens=3, ids="ids", mask="", types=""),
        files={"tokenizer.json": WORDS},
    )
    return opened(bundle.root, place / "home")


def pictures(place: Path) -> ServedNetwork:
    """A classifier of small pictures."""
    bundle = pack(
        place / "pictures",
        {"fp32": classifier(np.random.default_rng(0))},
        task="image-classification",
        feed=PictureFeed(height=12, width=12),
    )
    return opened(bundle.root, place / "home")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A language model and two networks."""
    words_model, pictures_model = words(tmp_path), pictures(tmp_path)
    words_model.name, pictures_model.name = "words", "pictures"
    with serving(fake_model(tmp_path), words_model, pictures_model) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as found:
        yield found


@pytest.mark.parametrize("packed", [True, False])
def test_texts_become_vectors(client: openai.OpenAI, packed: bool) -> None:
    """As numbers and as base64, which the client asks for by itself; with the count of tokens."""
    texts = ["hello you", "you you"]
    if packed:
        found = client.embeddings.create(model="words", input=texts)
    else:
        found = client.embeddings.create(model="words", input=texts, encoding_format="float")

    expected = [TABLE[1:].mean(axis=0), TABLE[2]]
    np.testing.assert_allclose([one.embedding for one in found.data], expected, rtol=1e-6)
    assert [one.index for one in found.data] == [0, 1]
    assert found.usage.prompt_tokens == 4


def test_a_text_that_would_be_cut_is_refused(client: openai.OpenAI) -> None:
    """With its number and what fits."""
    with pytest.raises(openai.BadRequestError, match="input 1 has more tokens than the 3"):
        client.embeddings.create(model="words", input=["you", "you you you you"])


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
def test_tokens_of_another_vocabulary_are_refused_with_what_to_do(
    client: openai.OpenAI, tokens: list[int]
) -> None:
    """Clients that cut texts themselves send numbers that mean other words here."""
    with pytest.raises(openai.BadRequestError, match=r"input: is of tokens.*send texts"):
        client.embeddings.create(model="words", input=tokens)


def test_a_model_of_another_kind_is_said(client: openai.OpenAI) -> None:
    """Both ways, and what each does instead."""
    with pytest.raises(openai.NotFoundError, match="computes vectors or classes"):
        client.embeddings.create(model="toy", input="you")
    with pytest.raises(openai.NotFoundError, match="answers in text"):
        client.completions.create(model="words", prompt="you")
    with pytest.raises(openai.BadRequestError, match="is for image-classification"):
        client.embeddings.create(model="pictures", input="you")


def classify(served: Served, **asked: object) -> httpx2.Response:
    return httpx2.post(f"{served.url}/v1/classify", json={"model": "pictures"} | asked)


def test_pictures_are_classified(served: Served) -> None:
    """As a data URL or as base64 alone; the likeliest first."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    pixels = np.random.default_rng(1).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, format="PNG")
    coded = base64.b64encode(file.getvalue()).decode()

    found = classify(served, image=f"data:image/png;base64,{coded}", top=2).json()

    assert [one["label"] for one in found["data"]] == sorted(
        (one["label"] for one in found["data"]),
        key=lambda label: -next(o["score"] for o in found["data"] if o["label"] == label),
    )
    assert len(found["data"]) == 2
    assert classify(served, image=coded, top=2).json() == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "one of the two"),
        ({"image": "x", "input": "y"}, "one of the two"),
        ({"image": "data:text/plain,abc"}, "must be 'data:image/"),
        ({"image": "***"}, "is no base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, "picture"),
        ({"input": "a text"}, "takes no texts"),
        ({"image": "aaaa", "top": 0}, "top"),
        ({"image": "aaaa", "tops": 1}, "tops"),
    ],
)
def test_what_is_no_picture_is_refused(served: Served, asked: dict[str, object], said: str) -> None:
    """One sentence that names it."""
    answer = classify(served, **asked)

    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_text_is_compared_with_labels(served: Served) -> None:
    """No training is needed: the nearest first, with shares that sum to one."""
    asked = {"model": "words", "input": "hello", "labels": ["you", "hello"]}
    found = classify(served, **asked).json()

    assert [one["label"] for one in found["data"]] == ["hello", "you"]
    assert [one["index"] for one in found["data"]] == [1, 0]
    assert found["data"][0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert sum(one["score"] for one in found["data"]) == pytest.approx(1)


def test_labels_stand_in_a_template(served: Served) -> None:
    """As the encoder saw such sentences."""
    asked = {"model": "words", "input": "hello you", "labels": ["hello", "you"], "top": 1}
    placed = classify(served, **asked, template="hello {}").json()["data"]

    assert [one["label"] for one in placed] == ["you"]
    assert placed[0]["similarity"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"labels": ["a", "b"], "image": "aaaa"}, "compared with input"),
        ({"labels": ["a"], "input": "x"}, "two or more"),
        ({"labels": ["a", "a"], "input": "x"}, "all different"),
        ({"labels": ["a", ""], "input": "x"}, "not empty"),
        ({"labels": ["a", "b"], "input": "x", "template": "about"}, "template"),
        ({"labels": ["a", "b"], "input": "x", "template": "{} {}"}, "template"),
        ({"input": "x", "template": "{}"}, "template"),
        ({"labels": ["a", "b"], "input": "x"}, "is for image-classification"),
    ],
)
def test_labels_that_cannot_be_compared_are_refused(
    served: Served, asked: dict[str, object], said: str
) -> None:
    """One sentence that names what is wrong."""
    answer = classify(served, **asked)

    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
