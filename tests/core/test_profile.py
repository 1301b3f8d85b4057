"""What a device has, written as TOML and read back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile, parse_profile, read_profile, render_profile

positive = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
whole = st.integers(1, 2**62)
BOARD = DeviceProfile(
    name="board",
    system="linux",
    machine="aarch64",
    processor="Cortex-A76",
    physical_cores=4,
    usable_threads=3,
    instruction_sets=("asimd", "asimddp"),
    memory_bytes=8 * 2**30,
    read_bandwidth=(9e9, 12.5e9),
    watts=7.5,
    watts_source="measured at the plug",
)


@given(
    texts=st.lists(st.text(), min_size=6, max_size=6),
    counts=st.tuples(whole, whole, whole),
    instruction_sets=st.lists(st.text(), max_size=3),
    read_bandwidth=st.lists(positive, max_size=3),
    watts=positive,
    estimated=st.booleans(),
)
def test_toml_keeps_everything(
    texts: list[str],
    counts: tuple[int, int, int],
    instruction_sets: list[str],
    read_bandwidth: list[float],
    watts: float,
    *,
    estimated: bool,
) -> None:
    """Quotes, control characters, emoji: every text and number comes back the same."""
    keys = ("name", "system", "machine", "processor", "watts_source", "energy_counter")
    made = DeviceProfile(
        **dict(zip(keys, texts, strict=True)),
        physical_cores=counts[0],
        usable_threads=counts[1],
        memory_bytes=counts[2],
        instruction_sets=tuple(instruction_sets),
        read_bandwidth=tuple(read_bandwidth),
        watts=watts,
        estimated=estimated,
    )

    assert parse_profile(render_profile(made)) == made


@pytest.mark.parametrize("text", ["\x7f", "\x00\x1f", "\U0001f600", 'a"b\\c\n', "\u2028é中"])
def test_odd_texts_are_kept(text: str) -> None:
    """By hand, the characters in which JSON and TOML differ, and others."""
    rendered = render_profile(BOARD).replace('"board"', "@")
    assert "@" in rendered

    made = DeviceProfile(**{f: getattr(BOARD, f) for f in BOARD.__slots__} | {"processor": text})

    assert parse_profile(render_profile(made)).processor == text


def test_what_may_be_left_out() -> None:
    """No energy counter, and figures from a probe, are the defaults."""
    lines = render_profile(BOARD).splitlines()
    short = [line for line in lines if not line.startswith(("energy_counter", "estimated"))]

    assert parse_profile("\n".join(short)) == BOARD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name = ", "nmae = "), "unknown key 'nmae'; did you mean 'name'?"),
        (("watts = ", "zzzz = "), "unknown key 'zzzz'"),
        (("format = 1", "format = 2"), "format 2, this reader knows 1"),
        (("format = 1\n", ""), "format None, this reader knows 1"),
        (('"board"', "7"), "name is 7, must be a text"),
        (("physical_cores = 4", "physical_cores = 0"), "physical_cores is 0"),
        (("physical_cores = 4", "physical_cores = true"), "physical_cores is True"),
        (("physical_cores = 4", "physical_cores = 4.0"), "physical_cores is 4.0"),
        (("watts = 7.5", "watts = -1"), "watts is -1, must be a number above 0"),
        (("watts = 7.5", "watts = nan"), "watts is nan, must be a number above 0"),
        (("watts = 7.5", "watts = inf"), "watts is inf, must be a number above 0"),
        (("watts = 7.5", "watts = true"), "watts is True, must be a number above 0"),
        (("watts = 7.5", f"watts = 1{'0' * 400}"), "must be a number above 0"),
        (("watts = 7.5\n", ""), "watts is None"),
        (('["asimd", "asimddp"]', '"asimd"'), "instruction_sets is 'asimd', must be a list"),
        (('["asimd", "asimddp"]', "[1]"), "instruction_sets is 1, must be a text"),
        (("9000000000.0", '"fast"'), "read_bandwidth is 'fast'"),
        (("estimated = false", 'estimated = "no"'), "estimated is 'no', must be true or false"),
        (("format = 1", "format = "), "device profile is not TOML"),
        (("watts = 7.5", f"watts = {'9' * 5000}"), "device profile is not TOML"),
        (("watts = 7.5", f"watts = {'[' * 100_000}"), "device profile is not TOML"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_attack_wrong_profiles(change: tuple[str, str], message: str) -> None:
    """Each slip is one sentence that names the key and what was found."""
    text = render_profile(BOARD)
    assert change[0] in text

    with pytest.raises(InputError) as caught:
        parse_profile(text.replace(*change))

    assert message in str(caught.value)


def test_a_file_is_read(tmp_path: Path) -> None:
    """And a message about its content names it."""
    path = tmp_path / "board.toml"
    path.write_text(render_profile(BOARD), encoding="utf-8")
    assert read_profile(path) == BOARD

    path.write_text("format = 9", encoding="utf-8")
    with pytest.raises(InputError, match=r"board\.toml: device profile: format 9"):
        read_profile(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, or not text."""
    path = tmp_path / "board.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError, match=r"device profile .*board\.toml cannot be read"):
        read_profile(path)
