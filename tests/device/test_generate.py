"""Answers: pieces, stop conditions, shared prefixes, and contexts that end."""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.device.toy_model import ToySession
from tokenizers import decoders, models, pre_tokenizers

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import ContextOverflow, EngineError, InputError
from onhand.device.engines.base import Session
from onhand.device.generate import TextSession, generate_tokens
from onhand.device.prompts import Overflow
from onhand.device.sampling import Sampling
from onhand.device.template import ChatTemplate, Message
from onhand.device.text import Tokenizer, open_tokenizer

END = 256
OPEN = 257
TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}<open>"
Rule = Callable[[list[int]], int]


@lru_cache
def letters() -> Tokenizer:
    """A tokenizer with one token for each byte, an end, and the opening of an answer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    )
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(["</s>", "<open>"])
    return open_tokenizer(model.to_str().encode())


class FakeLoaded:
    """A model whose next token is a function of all tokens before it."""

    def __init__(self, rule: Rule, *, context: int = 200, vocab_size: int = 260) -> None:
        self.vocab_size = vocab_size
        self.context = context
        self.rule = rule
        self.fed: list[int] = []
        self.is_closed = False
        self.session_made: ToySession | None = None

    def session(self, *, context: int | None = None) -> Session:
        """See `Loaded`."""
        self.session_made = ToySession(context or self.context)
        return self.session_made

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        rows = np.ones((len(batch), self.vocab_size), dtype=np.float32)
        for row, (session, tokens) in zip(rows, batch, strict=True):
            assert isinstance(session, ToySession)
            assert len(tokens) > 0
            if session.length + len(tokens) > session.context:
                raise ContextOverflow("does not fit")
            session.tokens += tokens.tolist()
            self.fed.append(len(tokens))
            row[self.rule(session.tokens)] = 9
        return rows

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        raise NotImplementedError

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True


def saying(answer: str) -> Rule:
    """Say a text after the opening, then end."""
    script = [*map(int, letters().encode_template(answer)), END]

    def rule(tokens: list[int]) -> int:
        # Of a part of a prompt nothing is drawn: any token does.
        opened = max((i for i, t in enumerate(tokens) if t == OPEN), default=len(tokens) - 1)
        return script[len(tokens) - 1 - opened]

    return rule


def mixing(tokens: list[int]) -> int:
    """A letter that depends on every token so far: a wrong memory gives another answer."""
    digest = hashlib.sha256(np.asarray(tokens, dtype=np.int64).tobytes()).digest()
    return int(letters().encode_template("abcdefghijklmnop")[digest[0] % 16])


def text_session(loaded: FakeLoaded, *, context: int | None = None) -> TextSession:
    return TextSession(
        loaded, letters(), template=ChatTemplate(TEMPLATE), stop_ids=[END], context=context
    )


def user(text: str) -> Message:
    return Message("user", text)


def test_an_answer_comes_in_pieces_and_stops() -> None:
    """Each piece is text, the stop token is not shown, and the counts are those of tokens."""
    answer = text_session(FakeLoaded(saying("on 灯!"))).chat(user("lamp"))

    assert list(answer) == ["o", "n", " ", "灯", "!"]
    assert answer.finish_reason == "stop"
    assert answer.prompt_tokens == len("u:lamp;") + 1
    assert answer.generated_tokens == len("on 灯!".encode()) + 1
    assert answer.reused_tokens == answer.dropped_messages == 0


def test_a_whole_answer_at_once() -> None:
    """`complete` joins the pieces."""
    assert text_session(FakeLoaded(saying("yes"))).complete([user("?")]) == "yes"


def test_max_tokens_ends_an_answer() -> None:
    """At exactly so many tokens, and a cut character is marked."""
    answer = text_session(FakeLoaded(saying("ab灯"))).chat(user("?"), max_tokens=3)

    assert "".join(answer) == "ab\ufffd"
    assert (answer.finish_reason, answer.generated_tokens) == ("length", 3)


def test_a_stop_token_at_the_limit_is_a_stop() -> None:
    """The model finished, whatever the limit."""
    answer = text_session(FakeLoaded(saying("ab"))).chat(user("?"), max_tokens=3)

    assert ("".join(answer), answer.finish_reason) == ("ab", "stop")


def test_a_full_context_is_said() -> None:
    """Nothing is cut in silence: every token that fits is used, then the reason is "context"."""
    loaded = FakeLoaded(mixing, context=20)
    answer = text_session(loaded).generate("0123456789")
    text = "".join(answer)

    # 20 places for prompt and fed tokens, and one more token follows from the last of them.
    assert (len(text), answer.finish_reason) == (11, "context")


def test_a_prompt_as_long_as_the_context_gives_one_token() -> None:
    """It fits, so it is no overflow."""
    answer = text_session(FakeLoaded(mixing, context=10)).generate("0123456789")

    assert (len("".join(answer)), answer.finish_reason) == (1, "context")


@pytest.mark.parametrize("stop", ["STOP", "灯", "b S", "ST"])
def test_stop_strings_are_never_shown(stop: str) -> None:
    """Not even partly, though they come letter by letter."""
    answer = text_session(FakeLoaded(saying("a ST ab STOP c 灯 d"))).chat(user("?"), stop=[stop])

    assert "".join(answer) == "a ST ab STOP c 灯 d".split(stop)[0]
    assert answer.finish_reason == "stop-string"


def test_what_began_like_a_stop_string_is_shown_at_the_end() -> None:
    """Held text is not lost."""
    answer = text_session(FakeLoaded(saying("well ST"))).chat(user("?"), stop=["STOP"])

    assert ("".join(answer), answer.finish_reason) == ("well ST", "stop")


def test_a_stop_string_may_end_with_a_cut_character() -> None:
    """What the stream holds back is searched as well."""
    answer = text_session(FakeLoaded(saying("a灯"))).chat(user("?"), stop=["\ufffd"], max_tokens=2)

    assert ("".join(answer), answer.finish_reason) == ("a", "stop-string")


@given(prompts=st.lists(st.text("ab", min_size=1, max_size=6), min_size=2, max_size=5))
def test_a_shared_prefix_changes_no_answer(prompts: list[str]) -> None:
    """Whatever came before, an answer is that of a fresh session."""
    loaded = FakeLoaded(mixing)
    used = text_session(loaded)
    for prompt in prompts:
        fresh = text_session(FakeLoaded(mixing)).complete(prompt, max_tokens=4)

        assert used.complete(prompt, max_tokens=4) == fresh


def test_only_what_is_new_is_fed() -> None:
    """A conversation that goes on pays for its new turn, its own answer included."""
    loaded = FakeLoaded(saying("yes"))
    session = text_session(loaded)
    first = session.generate("ab<open>")
    list(first)
    loaded.fed.clear()
    second = session.generate("ab<open>yes more<open>")
    list(second)

    # The last token of an answer, here the end, was never fed: "yes" was.
    assert second.reused_tokens == first.prompt_tokens + 3
    assert loaded.fed[0] == second.prompt_tokens - second.reused_tokens


def test_the_same_prompt_again_feeds_one_token() -> None:
    """Logits need one token at least."""
    loaded = FakeLoaded(mixing)
    session = text_session(loaded)
    first = session.complete("abcdef", max_tokens=3)
    loaded.fed.clear()
    again = session.generate("abcdef", max_tokens=3)

    assert "".join(again) == first
    assert (again.reused_tokens, loaded.fed[0]) == (5, 1)


def test_an_answer_may_be_broken_off() -> None:
    """The next prompt is answered as by a fresh session, and the old answer ends."""
    session = text_session(FakeLoaded(mixing))
    broken = session.generate("abc")
    pieces = [next(broken), next(broken)]
    after = session.complete("abcd", max_tokens=5)

    assert len(pieces) == 2
    assert after == text_session(FakeLoaded(mixing)).complete("abcd", max_tokens=5)
    assert (list(broken), broken.finish_reason) == ([], "cancelled")


def test_an_answer_never_read_costs_nothing() -> None:
    """Nothing is computed before the first piece is asked for."""
    loaded = FakeLoaded(mixing)
    session = text_session(loaded)
    session.generate("abc").close()

    assert loaded.fed == []
    assert session.complete("abc", max_tokens=2)


def test_after_a_failed_step_nothing_is_trusted() -> None:
    """What the session remembers of it is forgotten, and the next answer is right."""
    loaded = FakeLoaded(mixing)
    session = text_session(loaded)
    session.complete("abc", max_tokens=4)

    def fail(tokens: list[int]) -> int:
        raise EngineError("out of order")

    loaded.rule = fail
    with pytest.raises(EngineError):
        session.complete("abcd")
    loaded.rule = mixing
    answer = session.generate("abcde", max_tokens=4)

    assert "".join(answer) == text_session(FakeLoaded(mixing)).complete("abcde", max_tokens=4)
    assert answer.reused_tokens == 0


def test_a_prompt_that_does_not_fit_is_an_error_with_both_numbers() -> None:
    """And with what to do; the session stays usable."""
    session = text_session(FakeLoaded(mixing), context=10)
    with pytest.raises(ContextOverflow, match=r"11 tokens, the context holds 10; shorten"):
        session.generate("0123456789a")
    with pytest.raises(ContextOverflow, match="drop-oldest"):
        session.chat(user("0123456789"))

    assert len(session.complete("012345678", max_tokens=1)) == 1


def test_the_oldest_turns_are_dropped_on_request() -> None:
    """The model reads the system message and the last turns, and the answer says how many went."""
    loaded = FakeLoaded(saying("ok"), context=40)
    messages = [Message("system", "brief"), user("old"), Message("assistant", "a"), user("new")]
    answer = text_session(loaded).chat(*messages, overflow="drop-oldest", max_tokens=20)

    assert (list(answer), answer.dropped_messages) == (["o", "k"], 0)
    longer = [*messages[:2], Message("assistant", "a" * 20), messages[-1]]
    answer = text_session(loaded).generate(longer, overflow="drop-oldest")

    assert (list(answer), answer.dropped_messages) == (["o", "k"], 2)
    assert loaded.session_made is not None
    assert letters().decode(loaded.session_made.tokens) == "s:brief;u:new;ok"


def test_ids_without_a_token_are_never_generated() -> None:
    """Logits beyond the tokenizer's vocabulary are masked."""
    loaded = FakeLoaded(lambda tokens: 259)
    answer = text_session(loaded).generate("a", max_tokens=3, sampling=Sampling(temperature=5))
    list(answer)

    assert loaded.session_made is not None
    assert max(loaded.session_made.tokens) < letters().vocab_size


def test_sampled_answers_repeat_with_their_seed() -> None:
    """The same seed, the same answer; the penalty sees the whole prompt."""
    flat = FakeLoaded(lambda tokens: tokens[0], vocab_size=258)
    sampling = Sampling(temperature=8, seed=3)
    answers = {text_session(flat).complete("ab", max_tokens=9, sampling=sampling) for _ in range(3)}
    repelled = text_session(flat)
    first = repelled.complete("ab", max_tokens=1, sampling=Sampling(repetition_penalty=1e9))
    second = repelled.complete("ab", max_tokens=1, sampling=Sampling(repetition_penalty=1e9))

    assert len(answers) == 1
    assert first == second != "a"


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "has no token"),
        ("a", {"max_tokens": 0}, "max_tokens is 0"),
        ("a", {"overflow": "drop-oldest"}, "needs messages"),
        ("a", {"overflow": "cut"}, "overflow is 'cut'"),
        ("a", {"stop": "abc"}, "one string"),
        ("a\ud800", {}, "surrogate"),
        ([], {}, "no message"),
    ],
)
def test_slips_are_refused_at_once(
    prompt: str | list[Message], options: dict[str, Overflow], message: str
) -> None:
    """Before anything is computed."""
    loaded = FakeLoaded(mixing)
    with pytest.raises(InputError, match=message):
        text_session(loaded).generate(prompt, **options)  # type: ignore[arg-type]  # on purpose

    assert loaded.fed == []


def test_a_model_without_template_cannot_chat() -> None:
    """The message says what is missing and what works; a plain prompt does."""
    session = TextSession(FakeLoaded(mixing), letters(), name="base")
    with pytest.raises(InputError, match=r"base: has no chat template .* --prompt"):
        session.chat(user("hi"))

    assert len(session.complete("hi", max_tokens=2)) == 2
    assert not session.takes_messages
    assert text_session(FakeLoaded(mixing)).takes_messages


def test_closing_releases_everything_once() -> None:
    """Twice is fine; the running answer ends; no further one begins."""
    loaded = FakeLoaded(mixing)
    with text_session(loaded) as session:
        answer = session.generate("abc")
        next(answer)
    session.close()

    assert loaded.is_closed
    assert loaded.session_made is not None
    assert loaded.session_made.is_closed
    assert (list(answer), answer.finish_reason) == ([], "cancelled")
    with pytest.raises(InputError, match="closed"):
        session.generate("abc")


def test_tokens_without_text() -> None:
    """The low level yields ids, the one that stops included."""
    loaded = FakeLoaded(saying("hi"))
    session = loaded.session()
    prompt = letters().encode_template("a<open>")
    ids = list(generate_tokens(loaded, session, prompt, stop_ids={END}))

    assert ids == [*letters().encode_template("hi"), END]
    assert session.length == len(prompt) + 2
    with pytest.raises(InputError, match="max_tokens is -1"):
        next(generate_tokens(loaded, session, prompt, max_tokens=-1))
