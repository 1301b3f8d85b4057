"""Every error has its exit code and one sentence; results and talk go separate ways."""

import contextlib
import inspect
import json
import subprocess
import sys

import pytest

from onhand.cli.main import COMMANDS, EXIT_CODES, main
from onhand.core import errors
from onhand.core.bundle import Bundle

Capture = pytest.CaptureFixture[str]


def raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `onhand verify` end with an error."""

    def failing(_: object) -> None:
        raise error

    monkeypatch.setattr("onhand.cli.verify.read_bundle", failing)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.OnhandError, 1),
        (errors.InputError, 2),
        (errors.ContextOverflow, 2),
        (errors.RecipeError, 2),
        (errors.SourceError, 2),
        (errors.BundleError, 3),
        (errors.BundleCorrupt, 3),
        (errors.BundleTooNew, 3),
        (errors.BudgetExceeded, 4),
        (errors.EngineError, 5),
        (errors.EngineUnavailable, 5),
        (errors.ResourceError, 6),
    ],
)
def test_every_branch_of_the_error_tree_has_its_code(
    error: type[errors.OnhandError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The message is one sentence on stderr after the command; stdout stays empty."""
    raises(error("x.bin: found 3,\n expected 4"), monkeypatch)

    found = main(["verify", "x"])

    assert found == code
    assert capsys.readouterr() == ("", "onhand verify: x.bin: found 3, expected 4\n")


def test_no_branch_is_forgotten() -> None:
    """Each class right below the base has an entry; what is narrower comes before it."""
    branches = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__base__ is errors.OnhandError
    ]

    kinds = list(EXIT_CODES)
    assert {*branches, errors.OnhandError} <= set(kinds)
    assert kinds[-1] is errors.OnhandError
    assert not any(
        issubclass(later, kind) for n, kind in enumerate(kinds) for later in kinds[n + 1 :]
    )


def test_an_interruption_ends_with_130_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Ctrl-C shows no traceback."""
    raises(KeyboardInterrupt(), monkeypatch)

    assert main(["verify", "x"]) == 130
    assert capsys.readouterr() == ("", "onhand verify: interrupted\n")


def test_memory_that_runs_out_is_a_lack_of_resources(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A MemoryError is told like a ResourceError."""
    raises(MemoryError(), monkeypatch)

    assert main(["verify", "x"]) == EXIT_CODES[errors.ResourceError]
    assert capsys.readouterr().err.startswith("onhand verify: memory ran out")


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody raised on purpose keeps its traceback."""
    raises(ZeroDivisionError(), monkeypatch)

    with pytest.raises(ZeroDivisionError):
        main(["verify", "x"])


@pytest.mark.parametrize(("value", "is_shown"), [("1", True), ("0", False), ("", False)])
def test_debugging_shows_the_traceback(
    value: str, is_shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """ONHAND_DEBUG=1 puts the traceback before the sentence."""
    raises(errors.InputError("wrong"), monkeypatch)
    monkeypatch.setenv("ONHAND_DEBUG", value)

    main(["verify", "x"])

    told = capsys.readouterr().err
    assert ("Traceback" in told) is is_shown
    assert told.endswith("onhand verify: wrong\n")


def test_a_message_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A file name with an escape sequence is shown, not obeyed."""
    raises(errors.BundleCorrupt("a\x1b[2Jb is missing"), monkeypatch)

    main(["verify", "x"])

    assert capsys.readouterr().err == "onhand verify: a\\x1b[2Jb is missing\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("biuld", "onhand: no such command 'biuld'; did you mean build?"),
        ("--vresion", "onhand: no such option: --vresion; did you mean --version?"),
        ("verify x --jsn", "onhand verify: no such option: --jsn; did you mean --json?"),
        ("verify x --wholly", "onhand verify: no such option: --wholly; see onhand verify --help"),
        ("inspect", "onhand inspect: missing argument 'NAME'; see onhand inspect --help"),
        (
            "chat x --overflow drop",
            "onhand chat: invalid value for '--overflow': 'drop' is not one of 'error', "
            "'drop-oldest'; see onhand chat --help",
        ),
    ],
)
def test_a_wrong_command_line_is_one_sentence_with_advice(
    line: str, sentence: str, capsys: Capture
) -> None:
    """The exit code is 2, and what was probably meant is named."""
    assert main(line.split()) == 2
    assert capsys.readouterr() == ("", f"{sentence}\n")


@pytest.mark.parametrize(
    "line", ["run x --temperature hot", "bench x --runs 0", "evaluate x", "build x -o"]
)
def test_values_that_cannot_be_read_are_usage_errors(line: str, capsys: Capture) -> None:
    """A number that is none, one out of range, and a missing value are told in one line."""
    assert main(line.split()) == 2
    out, told = capsys.readouterr()
    assert out == ""
    assert told.startswith(f"onhand {line.split()[0]}: ")
    assert told.endswith("--help\n")
    assert told.count("\n") == 1


def test_help_lists_every_command(capsys: Capture) -> None:
    """No arguments are the same as --help, and both succeed."""
    assert main(["--help"]) == 0
    with_option = capsys.readouterr().out
    assert main([]) == 0

    assert capsys.readouterr().out == with_option
    assert [name for name in COMMANDS if f" {name} " not in with_option] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str, capsys: Capture) -> None:
    """Its help names the command and says what it does."""
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"onhand {name}" in shown
    assert COMMANDS[name][:40] in shown


def test_the_version_is_that_of_the_package(capsys: Capture) -> None:
    """`onhand --version` prints one line."""
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"onhand {version('onhand')}\n"


LOADED = """
import json, sys
from onhand.cli.main import main
code = main(sys.argv[1:])
heavy = {"jinja2", "onnxruntime", "onnx", "tokenizers", "torch", "rich"}
# An engine of the host is a plug-in like any other: it is asked, and loads no package for that.
host = [name for name in sys.modules if name.startswith("onhand.host.")]
heavy.update(name for name in host if not name.startswith("onhand.host.engines"))
print(json.dumps([code, [name for name in heavy if name in sys.modules]]))
"""


@pytest.mark.parametrize("command", ["--version", "verify", "inspect --json"])
def test_quick_commands_load_nothing_heavy(command: str, bundle: Bundle) -> None:
    """What needs no model starts without any engine, and without the host's packages."""
    words = command.split()
    place = [] if command.startswith("--") else [str(bundle.root)]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED, *words, *place],
        capture_output=True,
        check=True,
        text=True,
    )

    code, heavy = json.loads(run.stdout.splitlines()[-1])

    assert code == 0
    assert heavy == []


RUN = "import sys; from onhand.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("command", ["inspect", "verify", "--help"])
def test_a_reader_that_goes_away_ends_the_program_quietly(command: str, bundle: Bundle) -> None:
    """`onhand report NAME | head -1` complains of nothing."""
    words = [command] if command.startswith("--") else [command, str(bundle.root)]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        told = run.stderr.read().decode()

    assert run.returncode == 141
    assert [line for line in told.splitlines() if not line.startswith("note: ")] == []


def test_a_server_starts_again_with_memory_that_stays_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the same process, once; no other command does."""
    started: list[dict[str, str]] = []

    def start(program: str, words: list[str], environment: dict[str, str]) -> None:
        assert (program, words) == (sys.executable, sys.orig_argv)
        started.append(environment)
        raise KeyboardInterrupt  # it does not come back

    monkeypatch.setattr("os.execve", start)
    monkeypatch.setattr(
        "onhand.device.freed_memory.without_thread_caches", lambda now: {**now, "AGAIN": "1"}
    )
    for command in ("serve", "inspect"):
        monkeypatch.setattr(sys, "argv", ["onhand", command, "--help"])
        with contextlib.suppress(KeyboardInterrupt):
            main()

    assert [one["AGAIN"] for one in started] == ["1"]
