"""From a file to a version in use: taught, judged, resumed, refused, and none of it silent."""

# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import N_PIXELS, D, trunk_weights, write_bundle

from onhand.core.bundle import Bundle
from onhand.core.errors import InputError, ResourceError
from onhand.core.progress import Quiet
from onhand.device.learning.added import add_classes, added_classes
from onhand.device.learning.ceilings import GO, Ceilings, Permission
from onhand.device.learning.gate import Bounds
from onhand.device.learning.in_use import versions_of, whole_values
from onhand.device.learning.learn import foresee, learn
from onhand.device.learning.locking import held
from onhand.device.learning.settings import LearnSettings

NAIVE = LearnSettings(method="naive", epochs=10, batch=4, heldout=0.2)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A network that can learn its head."""
    return write_bundle(tmp_path / "things")


class Noting(Quiet):
    """Keeps what it was told."""

    def __init__(self) -> None:
        """Start empty."""
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep."""
        self.notes.append(text)


def write_data(folder: Path, n: int = 30, *, names: tuple[str, ...] = ("cup", "lamp")) -> Path:
    """Write arrays for the network, a folder for each class, that its trunk tells apart."""
    rng = np.random.default_rng(1)
    for number in range(n):
        name = names[number % len(names)]
        latent = np.full(D, -1.0, np.float32)
        latent[number % len(names)] = 3
        # What the trunk makes of these pixels is near the latent.
        pixels = latent @ np.linalg.pinv(trunk_weights()) + 0.05 * rng.standard_normal(N_PIXELS)
        place = folder / name / f"{number:03d}.npz"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(place, pixels=pixels.astype(np.float32)[None])
    return folder


def test_what_was_taught_is_in_use(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """The gate saw it do better on what it had not learned."""
    made = learn(bundle.root, write_data(tmp_path / "data"), settings=NAIVE, home=home)

    assert (made.ended, made.version, made.is_used) == ("done", 1, True)
    assert (made.examples, made.heldout) == (24, 6)
    assert made.steps == made.n_steps == 60
    assert made.figures["new_accuracy"] == 1.0
    assert made.figures["new_accuracy_before"] < 1.0
    assert made.losses[-1] < made.losses[0]
    assert made.peak_memory_bytes > 10 * 2**20
    versions = versions_of(bundle, home)
    assert versions.current().number == 1
    assert not list((versions.folder / "training").iterdir())
    json.dumps(made.to_json(), allow_nan=False)


def test_the_next_training_begins_from_the_version_in_use(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """And does not count as the same one."""
    data = write_data(tmp_path / "data")
    first = learn(bundle.root, data, settings=NAIVE, home=home)
    again = learn(bundle.root, data, settings=replace(NAIVE, epochs=1), home=home)

    assert again.resumed_at == 0
    assert again.losses[0] < first.losses[0] / 2
    assert versions_of(bundle, home).find(2).parent == 1


@pytest.mark.parametrize("method", ["naive", "replay", "prototypes"])
def test_an_interrupted_training_goes_on_by_itself(
    bundle: Bundle, tmp_path: Path, home: Path, method: str
) -> None:
    """And ends with the very values of one that was not, said to the user."""
    data = write_data(tmp_path / "data", names=("cup", "lamp", "door"))
    settings = replace(NAIVE, method=method, epochs=2)
    whole = learn(bundle.root, data, settings=settings, home=tmp_path / "other")

    asked = iter([False, False, True])
    first = learn(
        bundle.root, data, settings=settings, home=home, is_interrupted=lambda: next(asked)
    )
    shown = Noting()
    second = learn(bundle.root, data, settings=settings, home=home, progress=shown)

    assert (first.ended, first.version, first.steps) == ("interrupted", None, 2)
    assert second.resumed_at == 2
    assert any("resumed after step 2" in note for note in shown.notes)
    assert second.losses == whole.losses
    found, expected = (versions_of(bundle, place) for place in (home, tmp_path / "other"))
    assert found.find(1).sha256 == expected.find(1).sha256


def test_a_version_that_is_worse_is_refused(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """Kept with its reasons, and not used: labels that contradict what judges."""
    data = write_data(tmp_path / "data")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (data / "cup").rename(wrong / "lamp")
    (data / "lamp").rename(wrong / "cup")
    right = write_data(tmp_path / "right", 8)

    made = learn(bundle.root, wrong, settings=replace(NAIVE, heldout=right), home=home)

    assert (made.version, made.is_accepted, made.is_used) == (1, False, False)
    assert any("8 new examples" in reason for reason in made.reasons)
    assert versions_of(bundle, home).current().number == 0


def test_what_was_forgotten_is_judged(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """Examples of the past judge a version that was taught something else alone."""
    past = write_data(tmp_path / "past", 60, names=("cup", "lamp", "door"))
    learn(bundle.root, past, settings=replace(NAIVE, heldout=0.0), home=home)
    new = write_data(tmp_path / "new", 20, names=("cup",))
    settings = replace(NAIVE, remember=past, rate=0.5, heldout=0.2)

    naive = learn(bundle.root, new, settings=replace(settings, use=False), home=home)
    replayed = learn(bundle.root, new, settings=replace(settings, method="replay"), home=home)

    assert (naive.past, naive.past_heldout) == (48, 12)
    assert not naive.is_accepted
    assert naive.figures["old_lost_points"] > replayed.figures["old_lost_points"]


def test_a_class_that_is_new_is_added(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """At the end of the others, by its name, for the next training too."""
    data = write_data(tmp_path / "data", names=("cup", "lamp", "window"))

    made = learn(bundle.root, data, settings=NAIVE, home=home)
    again = learn(bundle.root, data, settings=NAIVE, home=home)

    versions = versions_of(bundle, home)
    assert made.added_classes == ("window",)
    assert again.added_classes == ()
    assert added_classes(versions.folder) == ("window",)
    values = whole_values(bundle, versions, versions.find(1))
    assert values["head.weight"].shape == (4, D)
    assert made.figures["new_accuracy"] == 1.0


def test_a_ceiling_ends_it_and_what_was_learned_is_judged(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """As it is then."""
    left = iter([GO] * 3)
    made = learn(
        bundle.root,
        write_data(tmp_path / "data"),
        settings=NAIVE,
        home=home,
        permit=lambda spent: next(left, Permission("end", "that is enough")),
    )

    assert (made.ended, made.why) == ("ceiling", "that is enough")
    assert (made.steps, made.version) == (3, 1)


def test_a_ceiling_that_lets_no_step_begin_makes_no_version(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """Of nothing there is nothing to judge."""
    settings = replace(NAIVE, ceilings=Ceilings(memory_bytes=1))

    with pytest.raises(ResourceError, match="nothing was learned: the process holds"):
        learn(bundle.root, write_data(tmp_path / "data"), settings=settings, home=home)
    assert versions_of(bundle, home).list_versions() == ()


def test_what_would_be_done_is_told_and_nothing_is_written(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """A dry run."""
    told = foresee(bundle.root, write_data(tmp_path / "data"), settings=NAIVE, home=home)

    assert (told.examples, told.heldout, told.n_steps, told.parent) == (24, 6, 60, 0)
    assert (told.kind, told.n_trained, told.rate) == ("head", 3 * D + 3, 1e-2)
    assert not home.exists()


def test_few_examples_are_all_taught(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """That nothing judges is said."""
    shown = Noting()
    data = write_data(tmp_path / "data", 4)

    made = learn(bundle.root, data, settings=replace(NAIVE, heldout=0.1), home=home, progress=shown)

    assert (made.examples, made.heldout, made.is_used) == (4, 0, True)
    assert any("too few" in note for note in shown.notes)


def test_the_gate_s_bounds_may_be_given(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """A version that gained too little is refused."""
    settings = replace(NAIVE, bounds=Bounds(least_gain=100))

    made = learn(bundle.root, write_data(tmp_path / "data"), settings=settings, home=home)

    assert "must fall by 100" in made.reasons[0]


def test_a_head_of_prototypes_may_be_far_from_the_old_one(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """It is made anew from its examples, and judged by what it does."""
    still = replace(NAIVE, method="prototypes", bounds=Bounds(most_change=1e-9))
    data = write_data(tmp_path / "data", names=("cup", "lamp", "door"))
    made = learn(bundle.root, data, settings=still, home=home)

    assert (made.is_used, made.reasons) == (True, ())
    assert made.figures["change"] > 1e-9


def test_trainings_that_were_broken_off_do_not_pile_up(
    bundle: Bundle, tmp_path: Path, home: Path
) -> None:
    """Only the last few are kept."""
    data = write_data(tmp_path / "data")
    for seed in range(6):
        learn(
            bundle.root,
            data,
            settings=replace(NAIVE, seed=seed),
            home=home,
            is_interrupted=lambda: True,
        )

    assert len(list((versions_of(bundle, home).folder / "training").iterdir())) == 4


def test_two_do_not_teach_at_once(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """They would write over each other's steps; the second is told, and may come later."""
    data = write_data(tmp_path / "data", 4)
    lock = versions_of(bundle, home).folder / "training.lock"

    with held(lock, busy="mine"), pytest.raises(InputError, match="another process teaches it"):
        learn(bundle.root, data, settings=NAIVE, home=home)

    assert learn(bundle.root, data, settings=NAIVE, home=home).version == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"optimizer": "adam"}, "optimizer is 'adam'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"heldout": 1.0}, "share held out is 1.0"),
        ({"rate": -1.0}, "learning rate is -1.0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    bundle: Bundle, tmp_path: Path, home: Path, settings: dict[str, object], sentence: str
) -> None:
    """Before anything is learned."""
    data = write_data(tmp_path / "data", 4)

    with pytest.raises(InputError, match=sentence):
        learn(bundle.root, data, settings=replace(NAIVE, **settings), home=home)  # type: ignore[arg-type]


def test_examples_of_another_kind_are_refused(bundle: Bundle, tmp_path: Path, home: Path) -> None:
    """A text for a network of pixels; a class of what judges that nobody teaches."""
    text = tmp_path / "data.jsonl"
    text.write_text('{"text": "a", "label": "cup"}\n{"text": "b"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2: is no labelled example"):
        learn(bundle.root, text, settings=NAIVE, home=home)
    text.write_text('{"text": "a", "label": "cup"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 1: is a text, this network takes files"):
        learn(bundle.root, text, settings=NAIVE, home=home)
    data = write_data(tmp_path / "data", 4)
    other = write_data(tmp_path / "other", 4, names=("roof",))
    with pytest.raises(InputError, match="'roof' is unknown"):
        learn(bundle.root, data, settings=replace(NAIVE, heldout=other), home=home)


def test_names_of_added_classes_are_only_ever_added(tmp_path: Path) -> None:
    """A damaged file is said."""
    add_classes(tmp_path / "learned", ["a", "b"])
    add_classes(tmp_path / "learned", ["a", "b", "c"])

    assert added_classes(tmp_path / "learned") == ("a", "b", "c")
    with pytest.raises(InputError, match="were added before"):
        add_classes(tmp_path / "learned", ["b"])
    (tmp_path / "learned" / "classes.json").write_text('[""]', encoding="utf-8")
    with pytest.raises(InputError, match="no name of a class"):
        added_classes(tmp_path / "learned")
