"""What a device has, written as TOML and read back."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile, parse_profile, read_profile, render_profile
from onhand.core.profile_comments import COMMENTS
from onhand.core.profile_parts import CacheLevel, EnergyCounter, MatrixRate, Provider

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


FULL = replace(
    BOARD,
    quota_cpus=1.5,
    affinity_cpus=3,
    free_bytes=2**30,
    storage_read=4e8,
    storage_write=9e7,
    power_source="battery",
    temperature_c=51.5,
    caches=(
        CacheLevel(level=1, size_bytes=2**16),
        CacheLevel(level=3, size_bytes=2**21, shared_by=4),
    ),
    matrix_rates=(
        MatrixRate(
            kind="int4", rows=1, inputs=2048, outputs=2048, threads=3, rate=4e10, engine="native"
        ),
    ),
    providers=(
        Provider(
            name="GPU", package="openvino", is_usable=True, note="VideoCore", falls_back=("Conv",)
        ),
        Provider(name="CUDAExecutionProvider", package="onnxruntime", note="no driver"),
        Provider(name="NPU", package="openvino", note="not installed", is_present=False),
    ),
    slow_read_bandwidth=(8e9, 11e9),
    others_busy=0.02,
    energy_counters=(
        EnergyCounter(
            name="package-0", path="energy_uj", unit="microjoule", is_readable=True, note="all"
        ),
    ),
    sources=("https://example.org/board", 'a "quoted" one: https://example.org/a,b'),
)


def test_lists_are_kept() -> None:
    """Caches, rates and providers, each as a table of its own."""
    assert parse_profile(render_profile(FULL)) == FULL
    assert "[[matrix_rates]]" in render_profile(FULL)


@pytest.mark.parametrize(("number", "end"), [(1, "affinity_cpus"), (2, "slow_read_bandwidth")])
def test_an_older_profile_is_read(number: int, end: str) -> None:
    """What it does not say is not known."""
    names = [field.name for field in fields(BOARD)]
    first = names[: names.index(end)]
    lines = [line for line in render_profile(BOARD).splitlines() if line.split(" ")[0] in first]

    assert parse_profile("\n".join([f"format = {number}", *lines])) == BOARD


def test_comments_say_the_units() -> None:
    """Every key that a comment is for is there, and nothing else is explained."""
    names = {field.name for field in fields(BOARD)}

    assert set(COMMENTS) <= names
    assert "# bytes per second, read from memory" in render_profile(BOARD)
    assert render_profile(FULL).count(f"# {COMMENTS['providers']}") == 1
    for name in names:
        assert name in COMMENTS or not name.endswith(("_bytes", "_c", "_read", "_write", "width"))


def test_each_source_has_its_line() -> None:
    """A person reads and extends them."""
    lines = render_profile(FULL).splitlines()

    assert lines[lines.index("sources = [") + 1] == '    "https://example.org/board",'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('kind = "int4"', 'kind = "int5"'), "kind is 'int5', must be one of fp32, int8, int4"),
        (("rate = 40000000000.0", "rate = 0"), "rate is 0, must be a number above 0"),
        (("rate = 40000000000.0", "rate = true"), "rate is True"),
        (("rate = 40000000000.0", "rate = inf"), "rate is inf"),
        (("inputs = 2048", "inputs = 2.5"), "inputs is 2.5, must be a whole number"),
        (('falls_back = ["Conv"]', "falls_back = [1]"), "falls_back is (1,), must be a list"),
        (("is_usable = true", 'is_usable = "yes"'), "is_usable is 'yes'"),
        (("shared_by = 4", "shared_by = 0"), "device profile: caches 2: shared_by is 0"),
        (('"microjoule"', '"erg"'), "energy_counters 1: unit is 'erg', must be one of microjoule"),
        (("[8000000000.0, ", "[0, "), "slow_read_bandwidth is 0, must be a number above 0"),
    ],
)
def test_attack_wrong_lists(change: tuple[str, str], message: str) -> None:
    """The table's number and the key are named."""
    text = render_profile(FULL)
    assert change[0] in text

    with pytest.raises(InputError) as caught:
        parse_profile(text.replace(*change))

    assert message in str(caught.value)


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
    named: dict[str, Any] = dict(zip(keys, texts, strict=True))
    made = DeviceProfile(
        **named,
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
        (("format = 3", "format = 4"), "format 4, this reader knows up to 3"),
        (("format = 3", "format = true"), "format True, this reader knows up to 3"),
        (("format = 3\n", ""), "format None, this reader knows up to 3"),
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
        (("format = 3", "format = "), "device profile is not TOML"),
        (("quota_cpus = 0.0", "quota_cpus = -1"), "quota_cpus is -1, must be a number from 0 on"),
        (("storage_read = 0.0", 'storage_read = "x"'), "storage_read is 'x'"),
        (("free_bytes = 0", "free_bytes = true"), "free_bytes is True"),
        (('"unknown"', '"sun"'), "power_source is 'sun', must be one of mains, battery"),
        (("sources = []", "sources = 1"), "sources is 1, must be a list"),
        (("sources = []", "sources = []\ntemperature_c = -300"), "temperature_c is -300"),
        (("sources = []", "sources = []\nothers_busy = -1"), "others_busy is -1"),
        (("sources = []", "sources = []\ncaches = 1"), "caches is no list of tables"),
        (("sources = []", "sources = []\ncaches = [{level = 0, size_bytes = 1}]"), "level is 0"),
        (("sources = []", "sources = []\ncaches = [{levle = 1}]"), "did you mean 'level'?"),
        (("sources = []", "sources = []\ncaches = [{level = 1}]"), "size_bytes"),
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
