"""`/v1/embeddings` and `/v1/classify`: what they may ask, and what they are told."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.device.networks.answers import Likely
from onhand.device.networks.embeddings import shares_of
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.bounds import MOST_CLASSES, MOST_INPUTS

__all__ = [
    "Classification",
    "Embedding",
    "classified",
    "compared",
    "embedded",
    "read_classification",
    "read_embedding",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A request for vectors that was understood.

    Attributes:
        texts: at least one.
        is_packed: whether vectors are wanted as base64 of float32 and not as numbers.
    """

    texts: tuple[str, ...]
    is_packed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """A request for classes that was understood.

    Attributes:
        example: a text, or the bytes of a picture.
        top: how many classes.
        labels: texts to choose from, for a network that embeds texts; empty for the classes that
            the network was trained for.
        template: what each label stands in, at {}.
    """

    example: str | bytes
    top: int
    labels: tuple[str, ...] = ()
    template: str = "{}"

    @property
    def texts(self) -> list[str]:
        """The labels as the network reads them."""
        return [self.template.replace("{}", label) for label in self.labels]


def read_embedding(body: Body) -> Embedding:
    """Understand a request to `/v1/embeddings`.

    Args:
        body: its fields.

    Returns:
        It.

    Raises:
        RefusedRequest: if a field is wrong, unknown or not supported.
    """
    if _has_tokens(body.given.get("input")):
        raise body.wrong(
            "input",
            "is of tokens; these are numbers of some model's vocabulary, seldom of this one's: "
            "send texts (in LangChain: check_embedding_ctx_length=False)",
        )
    texts = body.texts("input", most=MOST_INPUTS)
    if not texts:
        raise body.wrong("input", "must be a text that is not empty, or a list of such")
    wanted = body.text("encoding_format") or "float"
    if wanted not in {"float", "base64"}:
        raise body.wrong("encoding_format", "must be float or base64")
    body.only("dimensions")
    body.ignore(("model", "user"))
    body.end()
    return Embedding(texts=texts, is_packed=wanted == "base64")


def _has_tokens(given: object) -> bool:
    """Say whether an input is a list of numbers, or of such lists."""
    while isinstance(given, list) and given:
        given = given[0]
    return isinstance(given, int) and not isinstance(given, bool)


def embedded(
    wanted: Embedding, vectors: FloatArray, *, n_tokens: int, model: str
) -> dict[str, object]:
    """Return vectors.

    Args:
        wanted: what was asked.
        vectors: (N, D) float32.
        n_tokens: of all texts.
        model: who answered.

    Returns:
        The answer's JSON.
    """
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(vector) if wanted.is_packed else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    counts = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return {"object": "list", "data": data, "model": model, "usage": counts}


def read_classification(body: Body) -> Classification:
    """Understand a request to `/v1/classify`: `input`, a text, or `image`, a data URL or base64.

    With `labels` a text is compared with each of them, put into `template` ("about {}"), so that
    classes need no training.

    Args:
        body: its fields.

    Returns:
        It.

    Raises:
        RefusedRequest: if a field is wrong or unknown, or not one of the two is given.
    """
    text, image = body.text("input"), body.text("image")
    top = body.whole("top", least=1, most=MOST_CLASSES)
    labels, template = body.texts("labels", most=MOST_CLASSES), body.text("template")
    if labels and text is None:
        raise body.wrong("labels", "are compared with input, a text; give one")
    if len(set(labels)) < len(labels) or len(labels) == 1:
        raise body.wrong("labels", "must be two or more texts, all different")
    if template is not None and (not labels or template.count("{}") != 1):
        raise body.wrong("template", "must hold {} once, for each of labels to stand there")
    body.ignore(("model", "user"))
    body.end()
    if (text is None) == (image is None):
        raise body.wrong("input", "give input, a text, or image, a picture; one of the two")
    example = text if image is None else _picture(image, body)
    return Classification(
        example=example or "",
        top=5 if top is None else top,
        labels=labels,
        template=template or "{}",
    )


def classified(likely: Sequence[Likely], *, model: str) -> dict[str, object]:
    """Return classes.

    Args:
        likely: the likeliest first.
        model: who answered.

    Returns:
        The answer's JSON.
    """
    data = [{"index": one.index, "label": one.label, "score": one.share} for one in likely]
    return {"object": "classification", "model": model, "data": data}


def compared(wanted: Classification, similarities: FloatArray, *, model: str) -> dict[str, object]:
    """Return the labels nearest to a text.

    Args:
        wanted: what was asked.
        similarities: (N,) cosines of the text with each label.
        model: who answered.

    Returns:
        The answer's JSON; a score is a label's share, a similarity the cosine itself.
    """
    shares = shares_of(similarities)
    order = np.argsort(-similarities, kind="stable")[: wanted.top]
    data = [
        {
            "index": index,
            "label": wanted.labels[index],
            "score": float(shares[index]),
            "similarity": float(similarities[index]),
        }
        for index in order.tolist()
    ]
    return {"object": "classification", "model": model, "data": data}


def _packed(vector: FloatArray) -> str:
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode()


def _picture(given: str, body: Body) -> bytes:
    head, comma, tail = given.partition(",")
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise body.wrong("image", "must be 'data:image/...;base64,...', or base64 alone")
    try:
        return base64.b64decode(tail if comma else given, validate=True)
    except (ValueError, binascii.Error) as error:
        raise body.wrong("image", f"is no base64: {error}") from error
