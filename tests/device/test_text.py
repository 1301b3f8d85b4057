"""Text to tokens and back."""

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from onhand.core.errors import BundleCorrupt, InputError
from onhand.device.text import Tokenizer, open_tokenizer, read_tokenizer

UNKNOWN, OPENING, NO_TOKEN = "<unk>", "<s>", "<bos>"
SENTENCES = ["the lamp in the kitchen is on", "打开厨房的灯", "größer als früher 🙂 naïve"]
REAL = {
    "tinystories": "tinystories-656k/tokenizer.json",
    "smollm2": "tokenizers/smollm2/tokenizer.json",
    "gpt2": "tokenizers/gpt2/tokenizer.json",
    "phi3": "tokenizers/phi3/tokenizer.json",
}
unicode_text = st.text(st.characters(codec="utf-8"), max_size=40)


@lru_cache
def byte_level() -> bytes:
    """A byte-level BPE tokenizer, trained here."""
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    model.train_from_iterator(SENTENCES, trainer)
    model.add_tokens(["<tool call>"])
    return model.to_str().encode()


@lru_cache
def byte_fallback() -> bytes:
    """A SentencePiece-like tokenizer with byte tokens, as Llama 2 has it."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdehilmnopt", "▁a", "he", "▁t", "好"]
    model = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[("▁", "a"), ("h", "e"), ("▁", "t")],
            unk_token=UNKNOWN,
            byte_fallback=True,
        )
    )
    model.normalizer = tokenizers.normalizers.Sequence([
        tokenizers.normalizers.Prepend("▁"),
        tokenizers.normalizers.Replace(" ", "▁"),
    ])
    model.decoder = decoders.Sequence([
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])
    model.add_special_tokens(["<s>", "</s>"])
    model.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return model.to_str().encode()


MADE = {"byte-level": byte_level, "byte-fallback": byte_fallback}


@pytest.fixture(params=MADE)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Each of the tokenizers made here."""
    return open_tokenizer(MADE[request.param]())


def streamed(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """Decode one token at a time."""
    stream = tokenizer.stream()
    return "".join([*(stream.push(int(i)) for i in ids), stream.finish()])


@pytest.mark.parametrize("kind", MADE)
@given(text=unicode_text)
def test_pieces_together_are_the_whole_text(kind: str, text: str) -> None:
    """Streaming shows what decoding at once shows, which is the text."""
    tokenizer = open_tokenizer(MADE[kind]())
    ids = tokenizer.encode_plain(text)

    assert streamed(tokenizer, ids) == tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", REAL)
def test_pieces_together_are_the_whole_text_for_real_tokenizers(name: str, assets: Path) -> None:
    """The tokenizers of published models stream what they decode, whatever the text."""
    tokenizer = read_tokenizer(assets / REAL[name])

    @given(text=unicode_text)
    def check(text: str) -> None:
        for ids in (tokenizer.encode_plain(text), tokenizer.encode_template(text)):
            assert streamed(tokenizer, ids) == tokenizer.decode(ids)

    check()


@given(ids=st.lists(st.integers(0, 320), max_size=20))
def test_any_byte_level_tokens_stream_as_they_decode(ids: list[int]) -> None:
    """Tokens that no text gives, cut characters and ids without a token included."""
    tokenizer = open_tokenizer(byte_level())

    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def fallback_ids(data: bytes) -> list[int]:
    return [byte + 3 for byte in data]


@given(
    parts=st.lists(
        st.one_of(
            st.integers(259, 277).map(lambda i: ([i], False)),
            unicode_text.map(lambda text: (fallback_ids(text.encode()), True)),
        ),
        max_size=8,
    )
)
def test_whole_characters_in_byte_tokens_stream_as_they_decode(
    parts: list[tuple[list[int], bool]],
) -> None:
    """Any mixture of words and spelled-out characters."""
    tokenizer = open_tokenizer(byte_fallback())
    ids = [i for part, _ in parts for i in part]

    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def test_a_character_in_several_tokens_comes_at_once(tokenizer: Tokenizer) -> None:
    """Nothing is shown before the last byte of an emoji."""
    ids = tokenizer.encode_template("🦉")
    stream = tokenizer.stream()
    pieces = [stream.push(int(i)) for i in ids]

    assert len(ids) >= 3
    assert "".join(pieces[:-1]).strip() == ""
    assert pieces[-1] == "🦉"


def test_a_cut_character_is_marked_at_the_end_only() -> None:
    """Bytes that never become a character are shown as U+FFFD, and not before the end."""
    stream = open_tokenizer(byte_fallback()).stream()
    pieces = [stream.push(i) for i in fallback_ids("好".encode()[:2])]

    assert pieces == ["", ""]
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_bad_bytes_cost_only_themselves() -> None:
    """A whole character beside a bad byte stays whole; the words around keep their spaces."""
    tokenizer = open_tokenizer(byte_fallback())
    word = tokenizer.find("▁a")
    good = fallback_ids("é".encode())
    assert word is not None

    assert streamed(tokenizer, [word, *good, 0xFF + 3, *good, word]) == "aé\ufffdé a"
    assert streamed(tokenizer, [0xE5 + 3, word, word]) == "\ufffd a a"
    assert streamed(tokenizer, [0xE5 + 3, *good, word]) == "\ufffdé a"


def test_special_tokens_of_a_real_model_are_not_shown(assets: Path) -> None:
    """Not even one that its file marks as normalized, which the library would show."""
    tokenizer = read_tokenizer(assets / REAL["tinystories"])
    ids = tokenizer.encode_plain("Once")

    assert ids[0] == tokenizer.find("<|start_story|>")
    assert streamed(tokenizer, ids) == tokenizer.decode(ids) == "Once"


def test_special_tokens_are_not_shown_and_others_are() -> None:
    """The opening token is silent; an added token such as a tool call is text."""
    tokenizer = open_tokenizer(byte_level())
    ids = [tokenizer.find(token) for token in ("<s>", "a", "<tool call>", "</s>")]

    assert streamed(tokenizer, [i for i in ids if i is not None]) == "a<tool call>"


@pytest.mark.parametrize("content", [byte_level, byte_fallback])
def test_special_tokens_are_shown_where_they_are_asked_for(
    content: Callable[[], bytes],
) -> None:
    """Those alone, between texts as they are without them; a character cut before one is marked."""
    tokenizer = open_tokenizer(content())
    first, last, letter = (tokenizer.find(token) or 0 for token in ("<s>", "</s>", "a"))
    cut = tokenizer.find("Ã") or tokenizer.find("<0xC3>") or 0
    stream = tokenizer.stream(shown=[last, letter])
    text = [stream.push(token) for token in (letter, last, first, letter, cut, last)]

    assert text == ["a", "</s>", "", "a", "", "\ufffd</s>"]


def test_each_push_decodes_a_window_and_not_the_whole_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cost of a token does not grow with the text."""
    tokenizer = open_tokenizer(byte_fallback())
    longest = 0
    plain = Tokenizer.decode

    def counting(self: Tokenizer, ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return plain(self, ids)

    monkeypatch.setattr(Tokenizer, "decode", counting)
    streamed(tokenizer, tokenizer.encode_plain("the hat " * 50 + "🦉" * 20))

    assert longest <= 8


def test_plain_prompts_open_as_the_model_expects() -> None:
    """What tokenizer.json adds stays, unless the configuration overrules it."""
    own = open_tokenizer(byte_fallback(), bos_token=OPENING)
    forced = open_tokenizer(byte_level(), bos_token=OPENING, add_bos=True)
    without = open_tokenizer(byte_fallback(), bos_token=OPENING, add_bos=False)

    assert own.encode_plain("a")[0] == own.bos_id == 1
    assert own.encode_template("a")[0] != 1
    assert forced.encode_plain("a").tolist() == [0, *forced.encode_template("a")]
    assert without.encode_plain("a").tolist() == own.encode_template("a").tolist()
    assert without.encode_plain("<s>a")[0] == 1


def test_an_opening_token_is_never_doubled() -> None:
    """A tokenizer that adds it itself is not helped."""
    tokenizer = open_tokenizer(byte_fallback(), bos_token=OPENING, add_bos=True)

    assert tokenizer.encode_plain("a").tolist().count(1) == 1


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    """The message names the place; nothing crashes."""
    with pytest.raises(InputError, match=r"character 2 .*U\+D83D"):
        tokenizer.encode_plain("ab\ud83d")


def test_a_zero_character_is_text(tokenizer: Tokenizer) -> None:
    """NUL goes in and comes out."""
    assert tokenizer.decode(tokenizer.encode_plain("a\0b")) == "a\0b"


def test_a_file_that_cuts_or_pads_texts_is_not_obeyed() -> None:
    """A prompt is never cut in silence."""
    model = tokenizers.Tokenizer.from_str(byte_level().decode())
    model.enable_truncation(2)
    model.enable_padding(length=64)
    tokenizer = open_tokenizer(model.to_str().encode())

    assert tokenizer.decode(tokenizer.encode_plain("kitchen " * 9)) == "kitchen " * 9


def test_ids_without_a_token_are_listed() -> None:
    """A model's vocabulary may be larger than the tokenizer's; the rest is to be masked."""
    tokenizer = open_tokenizer(byte_level())
    mask = tokenizer.missing(tokenizer.vocab_size + 3)

    assert mask is not None
    assert np.flatnonzero(mask).tolist() == [tokenizer.vocab_size + i for i in range(3)]
    assert tokenizer.missing(tokenizer.vocab_size) is None
    assert tokenizer.missing(5) is None


def test_a_hole_in_the_vocabulary_is_listed() -> None:
    """An id in the middle may have no token, too."""
    model = json.loads(byte_level())
    model["added_tokens"][-1]["id"] += 2
    top = model["added_tokens"][-1]["id"]
    tokenizer = open_tokenizer(json.dumps(model).encode())

    if tokenizer.vocab_size == top + 1:  # the library may number added tokens anew
        mask = tokenizer.missing(top + 1)
        assert mask is not None
        assert np.flatnonzero(mask).tolist() == [top - 2, top - 1]


def test_an_impossible_id_is_refused(tokenizer: Tokenizer) -> None:
    """Ids below zero or beyond 32 bits are the caller's slip."""
    for token_id in (-1, 2**32):
        with pytest.raises(InputError, match="outside any vocabulary"):
            tokenizer.decode([token_id])


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"[" * 100_000]
)
def test_attack_a_damaged_file_is_refused(content: bytes) -> None:
    """Whatever is in the file, the error is ours and names the file."""
    with pytest.raises(BundleCorrupt, match=r"x\.json: is not a tokenizer"):
        open_tokenizer(content, where="x.json")


def test_an_opening_token_that_does_not_exist_is_refused() -> None:
    """A configuration that asks for it is wrong."""
    with pytest.raises(BundleCorrupt, match="must start with '<bos>'"):
        open_tokenizer(byte_level(), bos_token=NO_TOKEN, add_bos=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Reading says which file."""
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_tokenizer(tmp_path / "none.json")


def test_one_thread_encodes_for_all() -> None:
    """Each thread that encodes would keep every word that it has seen; the tokens are the same."""

    def encoders() -> int:
        return sum(thread.name.startswith("encoder") for thread in threading.enumerate())

    tokenizer = open_tokenizer(byte_level())
    before = tokenizer.encode_plain(SENTENCES[0]).tolist()
    with ThreadPoolExecutor(1, thread_name_prefix="encoder") as worker:
        tokenizer.encode_with(worker)
        tokenizer.encode_plain("lamp " * 60_000)  # nobody else waits for one that long

        assert encoders() == 0
        assert tokenizer.encode_plain(SENTENCES[0]).tolist() == before
        assert encoders() == 1
