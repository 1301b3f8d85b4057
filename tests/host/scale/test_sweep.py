"""What a sweep's file says, and what is refused in it."""

from pathlib import Path

import pytest

from onhand.cli.sweep import _build_options
from onhand.core.errors import InputError, RecipeError
from onhand.core.profile import render_profile
from onhand.device.known_devices import known_device
from onhand.host.scale.sweep import key_of, parse_sweep, read_sweep

OPTIONS = {"as_json": True, "bits": False, "calibrate": False, "budget": False, "no_original": True}
SWEEP = """format = 1
name = "two models"
[[source]]
name = "small"
from = "models/small"
[[source]]
name = "large"
from = "someone/large"
bits = 8
[[budget]]
name = "tight"
limits = "disk=1MB"
[[budget]]
name = "free"
limits = ""
[options]
calibrate = "text.txt"
no_original = true
"""


def test_every_source_meets_every_budget(tmp_path: Path) -> None:
    """Files are looked for beside the sweep's file; ids on a hub stay as they are."""
    (tmp_path / "models/small").mkdir(parents=True)

    sweep = parse_sweep(SWEEP, OPTIONS, folder=tmp_path, where="sweep.toml")

    names = ["small-tight", "small-free", "large-tight", "large-free"]
    assert [trial.name for trial in sweep.trials] == names
    shared = ("--calibrate", str(tmp_path / "text.txt"), "--no-original")
    small = str(tmp_path / "models/small")
    assert sweep.trials[0].words == (small, *shared, "--budget", "disk=1MB")
    assert sweep.trials[3].words == ("someone/large", "--bits", "8", *shared)
    assert not sweep.is_timed


def test_a_known_device_needs_no_file(tmp_path: Path) -> None:
    """By its name, as `--device` takes it."""
    text = SWEEP + '[[device]]\nname = "phone"\nprofile = "android-dimensity-9300"\n'

    sweep = parse_sweep(text, OPTIONS, folder=tmp_path, where="sweep.toml")

    expected = render_profile(known_device("android-dimensity-9300"))
    assert {trial.profile for trial in sweep.trials} == {expected}


def test_a_limit_on_time_is_noticed(tmp_path: Path) -> None:
    """Such a sweep has each machine to itself."""
    text = SWEEP.replace("disk=1MB", "decode=5")

    assert parse_sweep(text, OPTIONS, folder=tmp_path, where="sweep.toml").is_timed


def test_the_key_changes_with_the_work(tmp_path: Path) -> None:
    """The same work has the same key in every process."""
    one = parse_sweep(SWEEP, OPTIONS, folder=tmp_path, where="x").trials
    other = parse_sweep(SWEEP.replace("1MB", "2MB"), OPTIONS, folder=tmp_path, where="x").trials

    same = [key_of(a) == key_of(b) for a, b in zip(one, other, strict=True)]
    assert same == [False, True, False, True]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("format = 1", "format = 2", "format 2, this reader knows 1"),
        ("name = ", "nam = ", "unknown key 'nam'; did you mean 'name'"),
        ("[[source]]", "[[sources]]", "unknown key 'sources'; did you mean 'source'"),
        ('name = "small"', 'name = "../small"', "must be 1 to 100 of letters"),
        ('from = "models/small"', "from = 3", "source small: from is 3"),
        ('name = "large"', 'name = "small"', "two trials would be called 'small-tight'"),
        ("bits = 8", "bit = 8", "source large: unknown option 'bit'; did you mean 'bits'"),
        ("bits = 8", "bits = true", "bits is True, must be a text or a number"),
        ("bits = 8", "bits = [8]", r"bits is \[8\], must be a text or a number"),
        ("no_original = true", "no_original = 1", "no_original is 1, must be true or false"),
        ("bits = 8", 'budget = "x"', "unknown option 'budget'"),
        ("bits = 8", "as_json = true", "unknown option 'as_json'"),
        ('limits = ""', "limits = 5", "limits is 5: write a text"),
        ('limits = ""', 'limit = "x"', "unknown key 'limit'; did you mean 'limits'"),
        ("format = 1", "format = ", "is not TOML"),
    ],
)
def test_slips_are_told_with_their_place(old: str, new: str, told: str, tmp_path: Path) -> None:
    """Before anything is built."""
    with pytest.raises(RecipeError, match=told):
        parse_sweep(SWEEP.replace(old, new, 1), OPTIONS, folder=tmp_path, where="sweep.toml")


def test_budgets_and_profiles_are_read_at_once(tmp_path: Path) -> None:
    """What is wrong in them is told before the first build."""
    with pytest.raises(InputError, match="disc"):
        parse_sweep(SWEEP.replace("disk", "disc"), OPTIONS, folder=tmp_path, where="sweep.toml")
    named = SWEEP + '[[device]]\nname = "board"\nprofile = "none.toml"\n'
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        parse_sweep(named, OPTIONS, folder=tmp_path, where="sweep.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_sweep(tmp_path / "none.toml", OPTIONS)


def test_options_are_those_of_a_build() -> None:
    """Flags are known as such."""
    options = _build_options()

    assert options["no_original"] is True
    assert options["bits"] is False
    assert "source" not in options
