"""Texts and conversations as a lesson takes them: loss on answers, exact by token boundaries."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.device.learning.models import TableTeachable
from tokenizers import decoders, models, pre_tokenizers

from onhand.core.errors import InputError
from onhand.device.learning.examples import Dialogue, Labelled, PlainText
from onhand.device.learning.text_feeds import (
    TextSource,
    TokenSequence,
    answer_sequence,
    batch_sequences,
    sequences_of,
)
from onhand.device.template import Message
from onhand.device.text_files import TextFiles, parse_text_files

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Shows thoughts of the last answer only, as templates of thinking models do.
FORGETFUL = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and not loop.last %}...{% else %}{{ m.content }}{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
END = "</s>"


def text_files(template: str | None = TEMPLATE, *, merges: Sequence[str] = ()) -> TextFiles:
    """A tokenizer of bytes, and of pairs that are one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)}
    pairs = [(pair[0], pair[1]) for pair in merges]
    for first, second in pairs:
        vocabulary[first + second] = len(vocabulary)
    model = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens([END])
    config: dict[str, object] = {"eos_token": END}
    if template is not None:
        config["chat_template"] = template
    contents = {
        "tokenizer.json": model.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
    return parse_text_files(contents, where="toy")


def shown(files: TextFiles, sequence: TokenSequence) -> tuple[str, str]:
    """The whole text and what of it is learned, special tokens included."""
    pieces = [files.tokenizer.token(int(token)) or "?" for token in sequence.tokens]
    plain = [piece.replace("Ċ", "\n").replace("Ġ", " ") for piece in pieces]
    return "".join(plain), "".join(plain[i] for i in sequence.learned)


def dialogue(*contents: str) -> Dialogue:
    """A user and an assistant take turns."""
    roles = ["user", "assistant"] * len(contents)
    messages = tuple(Message(role, text) for role, text in zip(roles, contents, strict=False))
    learned = tuple(range(1, len(contents), 2))
    return Dialogue(messages=messages, learned=learned, where="data.jsonl: line 1")


def test_only_the_answer_and_its_end_are_learned() -> None:
    """Not the prompt, and not what the template writes after the end."""
    files = text_files()
    (found,) = sequences_of(dialogue("lamp on", "done"), files, context=100)

    assert shown(files, found) == ("<user>lamp on</s>\n<assistant>done</s>", "done</s>")


def test_all_answers_of_a_conversation_are_learned_in_one_sequence() -> None:
    """What was said in between is not."""
    files = text_files()
    (found,) = sequences_of(dialogue("a", "one", "b", "two"), files, context=100)

    text, learned = shown(files, found)
    assert text == "<user>a</s>\n<assistant>one</s>\n<user>b</s>\n<assistant>two</s>"
    assert learned == "one</s>two</s>"


def test_a_template_that_shows_answers_otherwise_later_gives_a_sequence_for_each() -> None:
    """Each as the model will see it."""
    files = text_files(FORGETFUL)
    first, second = sequences_of(dialogue("a", "one", "b", "two"), files, context=100)

    assert shown(files, first) == ("<user>a</s><assistant>one</s>", "one</s>")
    assert shown(files, second) == (
        "<user>a</s><assistant>...</s><user>b</s><assistant>two</s>",
        "two</s>",
    )


def test_letters_are_not_joined_across_the_beginning_of_an_answer() -> None:
    """The model is asked with the prompt's own tokens: what is learned follows them."""
    files = text_files(merges=[">d"])
    sequence = answer_sequence([Message("user", "x")], "done", files)

    prompt = files.tokenizer.encode_template("<user>x</s>\n<assistant>")
    np.testing.assert_array_equal(sequence.tokens[: len(prompt)], prompt)
    assert shown(files, sequence)[1] == "done</s>"


@given(text=st.text(max_size=12), answer=st.text(min_size=1, max_size=12))
def test_prompt_and_answer_are_whole_whatever_is_in_them(text: str, answer: str) -> None:
    """The tokens are those of the prompt and then, but for its end, those of the answer."""
    files = text_files(merges=[">d", "on", "e<"])
    sequence = answer_sequence([Message("user", text)], answer, files)
    prompt = files.tokenizer.encode_template(f"<user>{text}{END}\n<assistant>")

    np.testing.assert_array_equal(sequence.tokens[: len(prompt)], prompt)
    assert sequence.learned[0] == len(prompt)
    if END not in answer:
        assert files.tokenizer.decode(sequence.tokens[len(prompt) :]) == answer
        assert sequence.tokens[-1] in files.stop_ids


def test_without_a_template_a_prompt_is_continued() -> None:
    """And ended, so that the model learns to end."""
    files = text_files(None)
    (found,) = sequences_of(dialogue("lamp: ", "on"), files, context=100)

    assert shown(files, found) == ("lamp: on</s>", "on</s>")
    with pytest.raises(InputError, match="line 1: the model has no chat template"):
        sequences_of(dialogue("a", "one", "b", "two"), files, context=100)


@given(length=st.integers(2, 40), window=st.integers(2, 12))
def test_every_token_of_a_long_text_but_the_first_is_learned_once(length: int, window: int) -> None:
    """In pieces that are no longer than the window."""
    files = text_files()
    text = "".join(chr(97 + i % 26) for i in range(length))
    found = sequences_of(PlainText(text=text), files, context=100, window=window)

    assert all(len(one.tokens) <= window for one in found)
    assert "".join(shown(files, one)[1] for one in found) == text[1:]


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        (dialogue("a" * 90, "b"), "has .* tokens, the model's context is 100; shorten"),
        (Labelled(given="a", label="b", where="x: line 3"), "x: line 3: has a class"),
        (PlainText(text="a", where="short.txt"), "short.txt: a text of fewer than two tokens"),
    ],
)
def test_what_teaches_nothing_is_refused(example: Dialogue, sentence: str) -> None:
    """By file and line."""
    with pytest.raises(InputError, match=sentence):
        sequences_of(example, text_files(), context=100)


def test_a_template_that_hides_the_prompt_is_refused() -> None:
    """Nobody could say where the answer begins."""
    files = text_files(
        "{% if add_generation_prompt %}ask{% else %}"
        "{{ messages | length }}{{ messages[-1].content }}{% endif %}"
    )

    with pytest.raises(InputError, match="line 1: the chat template"):
        sequences_of(dialogue("a", "b"), files, context=100)


def test_a_batch_is_padded_and_scores_learned_positions_alone() -> None:
    """Rows are the positions before them, in the flattened batch."""
    short = TokenSequence(np.array([5, 6, 7]), np.array([2]))
    long = TokenSequence(np.array([1, 2, 3, 4]), np.array([1, 3]))

    feeds = batch_sequences([short, long], scale=0.5)

    np.testing.assert_array_equal(feeds["tokens"], [[5, 6, 7, 0], [1, 2, 3, 4]])
    np.testing.assert_array_equal(feeds["rows"], [1, 4, 6])
    np.testing.assert_array_equal(feeds["labels"], [[7], [2], [4]])
    np.testing.assert_array_equal(feeds["weights"], np.full((3, 1), 0.5, np.float32))


def test_the_loss_of_a_batch_is_the_mean_over_learned_tokens() -> None:
    """However examples are put together; of a model that knows nothing it is log V."""
    files = text_files()
    source = TextSource(sequences_of(dialogue("a", "one", "b", "two"), files, context=100))
    source.add(sequences_of(dialogue("c", "three"), files, context=100))
    teachable = TableTeachable(260)
    scale = 1 / sum(source.weight(number) for number in range(2))

    taught = teachable.teach(teachable.start(), source.feeds([0, 1], scale=scale))

    assert source.n_learned == len("onetwothree") + 3
    assert taught.loss == pytest.approx(np.log(260), rel=1e-5)
