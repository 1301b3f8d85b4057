"""Answers on stdout as they come, conversations through a pipe, and Ctrl-C."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from tests.cli.conftest import FakeAnswer, FakeSession

from onhand.cli.main import main
from onhand.cli.progress import Lines
from onhand.core.errors import ContextOverflow
from onhand.device.adapting.choosing import WayChoice
from onhand.device.sampling import Sampling
from onhand.device.speculate import SpeculationCounts
from onhand.device.template import Message

Capture = pytest.CaptureFixture[str]
Pipe = Callable[[str], None]


def test_run_streams_the_answer(session: FakeSession, capsys: Capture, home: Path) -> None:
    """The prompt is continued as it is, with the options given."""
    session.answers = [FakeAnswer(["the light", " is on"])]

    line = "run home --prompt hi --max-tokens 9 --temperature 0.5 --top-k 3 --seed 1 --stop a"
    line += " --stop b --engine reference --variant int8 --adapter lora --kv int8 --head two-stage"
    line += " --speculate lookup --prefill bf16"
    code = main(line.split())

    assert code == 0
    assert capsys.readouterr() == ("the light is on\n", "")
    prompt, options = session.asked[0]
    assert prompt == "hi"
    assert options == {
        "max_tokens": 9,
        "sampling": Sampling(temperature=0.5, top_k=3, seed=1),
        "stop": ("a", "b"),
    }
    path, opening = session.opened[0]
    assert isinstance(opening.pop("progress"), Lines)
    assert opening.pop("home") == home
    assert path == Path("home")
    assert opening == {
        "variant": "int8",
        "engine": "reference",
        "threads": None,
        "adapter": Path("lora"),
        "head": "two-stage",
        "kv": "int8",
        "prefill": "bf16",
        "speculate": "lookup",
        "trials": True,
        "version": None,
    }
    assert session.is_closed


def test_run_gives_programs_the_counts(session: FakeSession, capsys: Capture) -> None:
    """Standard output is one object; the text in it is exact."""
    session.answers = [FakeAnswer(["灯", "\x1b[0m\n"], finish_reason="length")]

    assert main(["run", "home", "--prompt", "hi", "--json"]) == 0

    table = json.loads(capsys.readouterr().out)
    assert table.pop("seconds") >= 0
    assert table == {
        "engine": "onnx",
        "finish_reason": "length",
        "generated_tokens": 3,
        "prompt_tokens": 7,
        "text": "灯\x1b[0m\n",
    }


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        (
            SpeculationCounts(steps=10, tokens=16, drafted=8, accepted=6, idle_steps=4),
            "6 of 8 drafted tokens were right (75%), 1.60 tokens a step; nothing to guess in 4 of "
            "10 steps, held back in 0",
        ),
        (SpeculationCounts(steps=9, idle_steps=9), "drafted in 9 steps: nothing to guess from"),
        (SpeculationCounts(steps=9, off_steps=2), "drafted in 9 steps: it would not have paid"),
    ],
)
def test_drafts_are_counted_where_they_were_asked_for(
    counts: SpeculationCounts, note: str, session: FakeSession, pipe: Pipe, capsys: Capture
) -> None:
    """A note for people, an object for programs."""
    session.answers = [FakeAnswer(["a"], speculation=counts) for _ in range(3)]
    pipe("hi\n")

    assert main(["run", "home", "--prompt", "hi", "--speculate", "lookup"]) == 0
    assert note in capsys.readouterr().err
    assert main(["chat", "home", "--speculate", "small"]) == 0
    assert note in capsys.readouterr().err
    assert main(["run", "home", "--prompt", "hi", "--speculate", "lookup", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["speculation"] == counts.to_json()
    assert session.opened[1][1]["speculate"] == "small"


def test_run_takes_the_prompt_from_a_pipe_or_a_file(
    session: FakeSession, pipe: Pipe, tmp_path: Path
) -> None:
    """One line end at the end is not part of it; with --chat it is a user's message."""
    session.answers = [FakeAnswer(["a"]), FakeAnswer(["b"])]
    (tmp_path / "prompt.txt").write_text("turn it\non\r\n", encoding="utf-8")
    pipe("what time\n\n")

    assert main(["run", "home"]) == 0
    assert main(["run", "home", "--chat", "--prompt-file", str(tmp_path / "prompt.txt")]) == 0

    assert [prompt for prompt, _ in session.asked] == [
        "what time\n",
        [Message("user", "turn it\non")],
    ]


def test_run_needs_one_prompt_that_can_be_read(
    session: FakeSession, tmp_path: Path, capsys: Capture
) -> None:
    """Two prompts, a missing file, and bytes that are no text are refused before opening."""
    (tmp_path / "bytes").write_bytes(b"\xff")

    for line, sentence in (
        ("--prompt a --prompt-file b", "give one of the two"),
        (f"--prompt-file {tmp_path / 'none'}", "cannot be read"),
        (f"--prompt-file {tmp_path / 'bytes'}", "cannot be read"),
    ):
        assert main(["run", "home", *line.split()]) == 2
        assert sentence in capsys.readouterr().err
    assert session.opened == []


def test_run_does_not_wait_for_a_person_to_type_a_prompt(
    monkeypatch: pytest.MonkeyPatch, pipe: Pipe, capsys: Capture
) -> None:
    """On a terminal a missing prompt is an error, not a silence."""
    pipe("")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)

    assert main(["run", "home"]) == 2
    assert "no prompt: give --prompt TEXT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reason", "note"), [("length", "as --max-tokens says"), ("context", "the context is full")]
)
def test_an_answer_that_was_cut_says_so(
    reason: str, note: str, session: FakeSession, capsys: Capture
) -> None:
    """Nothing is cut in silence."""
    session.answers = [FakeAnswer(["a"], finish_reason=reason)]

    main(["run", "home", "--prompt", "hi"])

    assert note in capsys.readouterr().err


def test_an_answer_that_breaks_off_ends_its_line(session: FakeSession, capsys: Capture) -> None:
    """Ctrl-C is told below the answer, with the exit code of an interruption."""
    session.answers = [FakeAnswer(["half", KeyboardInterrupt()])]

    assert main(["run", "home", "--prompt", "hi"]) == 130
    assert capsys.readouterr() == ("half\n", "onhand run: interrupted\n")
    assert session.is_closed


@pytest.mark.parametrize("option", ["--json", "--seed=1"])
def test_a_model_that_answers_messages_is_asked_for_a_continuation_with_a_word(
    session: FakeSession, capsys: Capture, option: str
) -> None:
    """Many forget --chat, and its answers then make little sense."""
    session.answers = [FakeAnswer(["a"]), FakeAnswer(["a"])]
    session.takes_messages = True

    main(["run", "home", "--prompt", "hi", option])
    note = capsys.readouterr().err
    main(["run", "home", "--prompt", "hi", option, "--chat"])

    assert note == "note: the text is continued; --chat gives it as a message to answer\n"
    assert capsys.readouterr().err == ""


def test_an_engine_that_was_passed_over_is_named(session: FakeSession, capsys: Capture) -> None:
    """A slower engine is taken with a word."""
    session.answers = [FakeAnswer(["a"])]
    session.engine_name, session.passed_over = "reference", {"onnx": "onnxruntime is not installed"}

    main(["run", "home", "--prompt", "hi"])

    assert capsys.readouterr().err == (
        "note: reference runs it, because onnx cannot: onnxruntime is not installed\n"
    )


def choice(source: Literal["timed", "remembered"]) -> WayChoice:
    """Native by a trial."""
    figures = {"decode_s": 0.001, "prefill_s_per_token": 0.0001}
    return WayChoice(engine="native", threads=1, source=source, figures=figures)


def test_a_trial_says_what_it_found(session: FakeSession, capsys: Capture) -> None:
    """Once, and later to those who ask."""
    session.engine_name, session.passed_over = "native", {"onnx:cuda": "5 tokens/s here"}
    told: list[str] = []
    for source, option in (("timed", ""), ("remembered", ""), ("remembered", " -v")):
        session.answers, session.choice = [FakeAnswer(["a"])], choice(source)  # type: ignore[arg-type] # as it is listed

        main(f"run home --prompt hi{option}".split())

        told.append(capsys.readouterr().err)

    assert told[0] == (
        "note: native with 1 thread: 1,000 tokens/s and 10,000 of a prompt (76.8 ms for 128 and "
        "64), timed here\nnote: onnx:cuda is not used: 5 tokens/s here\n"
    )
    assert told[1] == ""
    assert told[2] == told[0].replace("timed", "remembered")


def test_no_trials_need_no_state_folder(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first engine that can is taken then; a user without a home has learned nothing."""
    session.answers = [FakeAnswer(["a"])]
    monkeypatch.delenv("ONHAND_HOME")
    monkeypatch.setattr(Path, "home", _homeless)

    code = main(["run", "home", "--prompt", "hi", "--no-trials"])

    assert code == 0
    assert session.opened[0][1]["home"] is None
    assert session.opened[0][1]["trials"] is False


def _homeless() -> Path:
    raise RuntimeError("nobody's")


def test_chat_answers_line_by_line(session: FakeSession, pipe: Pipe, capsys: Capture) -> None:
    """Each line is a turn; the conversation grows, and starts over after /reset."""
    session.answers = [FakeAnswer(["one"]), FakeAnswer(["two"]), FakeAnswer(["three"])]
    pipe("first\n\n  second \n/reset\nthird\n/exit\nnever\n")

    assert main(["chat", "home", "--system", "be brief", "--context", "64"]) == 0

    system = Message("system", "be brief")
    assert [prompt for prompt, _ in session.asked] == [
        [system, Message("user", "first")],
        [
            system,
            Message("user", "first"),
            Message("assistant", "one"),
            Message("user", "second"),
        ],
        [system, Message("user", "third")],
    ]
    assert session.asked[0][1]["overflow"] == "error"
    assert session.opened[0][1]["context"] == 64
    assert session.opened[0][1]["adapter"] is None
    assert session.opened[0][1]["speculate"] is None
    assert capsys.readouterr() == ("one\ntwo\nthree\n", "note: the conversation is forgotten\n")


def test_an_interruption_stops_the_answer_and_not_the_program(
    session: FakeSession, pipe: Pipe, capsys: Capture
) -> None:
    """What was said stays in the conversation; a turn without any answer does not."""
    stopped = FakeAnswer(["half an", KeyboardInterrupt()])
    silent = FakeAnswer([KeyboardInterrupt()])
    session.answers = [stopped, silent, FakeAnswer(["done"])]
    pipe("long\nlonger\nshort\n")

    assert main(["chat", "home"]) == 0

    assert stopped.is_closed
    assert silent.is_closed
    assert session.asked[2][0] == [
        Message("user", "long"),
        Message("assistant", "half an"),
        Message("user", "short"),
    ]
    shown, told = capsys.readouterr()
    assert shown == "half an\n\ndone\n"
    assert told.count("note: stopped\n") == 2


def test_a_full_context_ends_a_program(session: FakeSession, pipe: Pipe, capsys: Capture) -> None:
    """Through a pipe nobody can answer a question, so the error ends it."""
    session.answers = [ContextOverflow("home: the prompt has 200 tokens, the context holds 128")]
    pipe("hello\n")

    assert main(["chat", "home"]) == 2
    assert "the context holds 128" in capsys.readouterr().err


def test_the_oldest_turns_go_with_a_word(session: FakeSession, pipe: Pipe, capsys: Capture) -> None:
    """--overflow drop-oldest is passed on, and what was left out is told."""
    session.answers = [FakeAnswer(["a"], dropped_messages=2)]
    pipe("hello\n")

    assert main(["chat", "home", "--overflow", "drop-oldest"]) == 0

    assert session.asked[0][1]["overflow"] == "drop-oldest"
    assert "note: the oldest 2 messages did not fit" in capsys.readouterr().err


def test_an_unknown_command_is_not_sent_to_the_model(
    session: FakeSession, pipe: Pipe, capsys: Capture
) -> None:
    """/rest is a slip for /reset; a path is a message."""
    session.answers = [FakeAnswer(["a file"])]
    pipe("/etc/hosts is what?\n/rest\n")

    assert main(["chat", "home"]) == 2

    assert len(session.asked) == 1
    assert "unknown command '/rest'; /help lists what there is" in capsys.readouterr().err


def test_bytes_that_are_no_text_are_refused(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The line is named."""
    lines = io.TextIOWrapper(io.BytesIO(b"hello\n" * 9999 + b"\xff\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", lines)
    session.answers = [FakeAnswer(["fine"]) for _ in range(9999)]

    assert main(["chat", "home"]) == 2
    assert "or one after it is not text" in capsys.readouterr().err


class Typist:
    """A person at a terminal: each entry is typed, or a key pressed."""

    def __init__(self, entries: list[str | BaseException]) -> None:
        self.entries = entries

    def __call__(self, _: str) -> str:
        """See `input`."""
        if not self.entries:
            raise EOFError
        entry = self.entries.pop(0)
        if isinstance(entry, BaseException):
            raise entry
        return entry


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a person type."""

    def types(*entries: str | BaseException) -> None:
        monkeypatch.setattr("onhand.cli.typed.is_interactive", lambda: True)
        monkeypatch.setattr("onhand.cli.chat.is_interactive", lambda: True)
        monkeypatch.setattr("builtins.input", Typist(list(entries)))

    return types


def test_a_person_is_told_and_may_go_on(
    session: FakeSession, person: Callable[..., None], capsys: Capture
) -> None:
    """A full context, a slip and one Ctrl-C at the prompt end nothing; Ctrl-D does."""
    session.answers = [ContextOverflow("home: too long"), FakeAnswer(["fine"])]
    person("hello", "/rest", KeyboardInterrupt(), "/help", "hello again")

    assert main(["chat", "home"]) == 0

    shown, told = capsys.readouterr()
    assert shown == "fine\n\n"
    assert "home: too long (/reset starts over" in told
    assert "unknown command '/rest'" in told
    assert "Ctrl-D or /exit ends the program" in told
    assert told.count("/reset  forget the conversation") == 2


def test_a_second_interruption_at_the_prompt_ends_the_program(
    session: FakeSession, person: Callable[..., None], capsys: Capture
) -> None:
    """Twice in a row means it."""
    session.answers = [FakeAnswer(["fine"])]
    person(KeyboardInterrupt(), "hello", KeyboardInterrupt(), KeyboardInterrupt(), "never")

    assert main(["chat", "home"]) == 130

    assert len(session.asked) == 1
    assert capsys.readouterr().err.endswith("onhand chat: interrupted\n")
