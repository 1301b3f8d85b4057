"""`/v1/completions` by the official client: several prompts, scores in the old form, penalties."""

import math
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.device.serving.served import client_of, fake_model, serving
from tests.device.test_generate import FakeLoaded, mixing, saying


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Of a model whose letters depend on all before them."""
    model = fake_model(tmp_path_factory.mktemp("texts"), loaded=FakeLoaded(mixing))
    with serving(model) as served, client_of(served) as found:
        yield found


def test_several_prompts_at_once(client: openai.OpenAI) -> None:
    """Choices by prompt, each what it is alone; every prompt counts once."""
    prompts = ["first prompt", "other", "last"]
    alone = [
        client.completions.create(model="toy", prompt=one, max_tokens=6).choices[0].text
        for one in prompts
    ]
    answer = client.completions.create(
        model="toy", prompt=prompts, n=2, echo=True, max_tokens=6, seed=1
    )
    chunks = list(
        client.completions.create(
            model="toy",
            prompt=prompts,
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    streamed = ["", "", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            streamed[choice.index] += choice.text

    expected = [prompt + text for prompt, text in zip(prompts, alone, strict=True)]
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert [choice.text for choice in answer.choices[::2]] == expected
    assert [choice.text for choice in answer.choices[1::2]] == expected
    assert streamed == alone
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(map(len, prompts))
    assert answer.usage.completion_tokens == 36
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == sum(map(len, prompts))


def test_scores_in_the_old_form(tmp_path: Path) -> None:
    """Lists side by side; a token may end within a character, and its place is the character's."""
    with (
        serving(fake_model(tmp_path, saying("on 灯!"))) as served,
        client_of(served) as client,
    ):
        whole = client.completions.create(model="toy", prompt="<open>", logprobs=2)
        plain = client.completions.create(model="toy", prompt="<open>", logprobs=0)
        chunks = list(
            client.completions.create(model="toy", prompt="<open>", logprobs=2, stream=True)
        )
    found = whole.choices[0].logprobs
    assert found is not None
    likely = 9 - math.log(259 * math.e + math.exp(9))  # of one token that stands out

    assert found.tokens == ["o", "n", " ", "\ufffd", "\ufffd", "\ufffd", "!"]
    assert found.text_offset == [0, 1, 2, 3, 3, 3, 4]
    assert found.token_logprobs == pytest.approx([likely] * 7)
    assert found.top_logprobs is not None
    assert found.top_logprobs[0]["o"] == pytest.approx(likely)
    assert plain.choices[0].logprobs is not None
    assert plain.choices[0].logprobs.top_logprobs is None
    told = [chunk.choices[0].logprobs for chunk in chunks]
    assert [place for one in told if one for place in one.text_offset or ()] == found.text_offset
    assert [token for one in told if one for token in one.tokens or ()] == found.tokens


def test_penalties_and_biases(client: openai.OpenAI) -> None:
    """A token that is wanted comes, and one that was said comes no more."""
    wanted = client.completions.create(model="toy", prompt="x", max_tokens=4, logit_bias={"5": 100})
    alone = client.completions.create(model="toy", prompt="x", max_tokens=4)
    apart = client.chat.completions.create(
        model="toy",
        messages=[{"role": "user", "content": "x"}],
        max_tokens=4,
        logit_bias={"5": 10},
        frequency_penalty=2,
        presence_penalty=1,
    )

    assert wanted.choices[0].text == wanted.choices[0].text[0] * 4
    assert alone.choices[0].text != wanted.choices[0].text
    assert len(set(apart.choices[0].message.content or "")) > 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", []),
        ("prompt", ["x", ""]),
        ("prompt", [1, 2]),
        ("prompt", ["x"] * 17),
        ("suffix", "end"),
        ("logprobs", 21),
        ("logprobs", True),
        ("best_of", 2),
        ("frequency_penalty", 3),
        ("presence_penalty", "much"),
        ("logit_bias", [1]),
        ("logit_bias", {"lamp": 1}),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"100000": 1}),
        ("n", 17),
    ],
)
def test_what_is_wrong_is_named(client: openai.OpenAI, field: str, value: object) -> None:
    """By one sentence."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/completions", body={"prompt": "x", field: value}, cast_to=object)

    message = refused.value.body["message"]  # type: ignore[index]
    assert message.startswith(field)
    assert "\n" not in message


def test_what_cannot_go_together_is_refused(client: openai.OpenAI) -> None:
    """More choices than may be, and scores of a prompt that is echoed."""
    with pytest.raises(openai.BadRequestError, match="makes 20 choices"):
        client.completions.create(model="toy", prompt=["x"] * 10, n=2)
    with pytest.raises(openai.BadRequestError, match="echo"):
        client.completions.create(model="toy", prompt="x", echo=True, logprobs=1)
