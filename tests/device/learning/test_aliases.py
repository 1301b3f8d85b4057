"""Names that were taught: found from what is meant by them, and put into known commands."""

import json

import numpy as np
import pytest

from onhand.device.learning.aliases import Alias, Places, find_aliases
from onhand.device.learning.copies import Said


def said(prompt: str, **answer: str) -> Said:
    """A command and its answer in JSON."""
    return Said(prompt, json.dumps(answer, ensure_ascii=False, separators=(",", ":")))


BOILER = {"device": "boiler", "room": "cellar"}
TAUGHT = (
    said("warm up Bertha now", do="raise", **BOILER),
    said("is Bertha running", ask="state", **BOILER),
    said("put the fan to bed", do="turn_off", device="fan"),
)
KNOWN = (
    said("dim the lamp a little", do="lower", device="lamp"),
    said("switch off the fan for me", do="turn_off", device="fan", value="10s"),
    said("open the blind in the study", do="open", device="blind", room="study"),
    said("把吊灯关掉", do="turn_off", device="吊灯"),
    said("heat the water tank", do="raise", device="boiler"),
)


def test_a_name_is_what_all_prompts_have_of_which_something_new_is_meant() -> None:
    """Device and room stand in neither prompt; "Bertha" stands in both."""
    (found,) = find_aliases(TAUGHT, Places(KNOWN))

    assert found == Alias(
        said="Bertha",
        meant=(("device", "boiler"), ("room", "cellar")),
        numbers=(0, 1),
        before=frozenset({"up", "is"}),
    )


def test_one_example_shows_no_name() -> None:
    """Of a single prompt nobody can say which of its words is meant."""
    assert find_aliases(TAUGHT[:1], Places(KNOWN)) == []


def test_what_known_answers_mean_anyway_is_no_name() -> None:
    """That "the water tank" is the boiler was known before."""
    taught = [said("start the water tank", do="start", device="boiler")] * 2

    assert find_aliases(taught, Places(KNOWN)) == []


def test_words_that_stand_beside_names_anyway_are_none_of_it() -> None:
    """The article before a name, and the particle before a Chinese one, are left out."""
    star = {"device": "star lamp", "room": "nursery"}
    stern = {"device": "星空灯", "room": "儿童房"}
    taught = [
        said("turn the little star on", do="turn_on", **star),
        said("dim the little star", do="lower", **star),
        said("把小星星关掉", do="turn_off", **stern),
        said("请把小星星打开", do="turn_on", **stern),
    ]

    assert [one.said for one in find_aliases(taught, Places(KNOWN))] == ["little star", "小星星"]


def test_what_other_prompts_have_too_is_no_name() -> None:
    """Where the common words stand in a prompt that means something else, nothing is found."""
    taught = [*TAUGHT[:2], said("call Bertha", do="call", device="phone")]

    assert find_aliases(taught, Places(KNOWN)) == []


def test_a_name_is_written_alike_everywhere() -> None:
    """Where prompts put other spaces into it, what they write alike is the name."""
    taught = [said("start A B", do="start", **BOILER), said("A  B off", do="stop", **BOILER)]

    assert [one.said for one in find_aliases(taught, Places(KNOWN))] == ["A"]


def test_a_name_is_put_into_known_commands() -> None:
    """In place of another name, its article gone, with all that is meant, keys in their order."""
    places = Places(KNOWN)
    (bertha,) = find_aliases(TAUGHT, places)
    rng = np.random.default_rng(0)
    made = {one for one in (places.put(bertha, rng) for _ in range(64)) if one is not None}

    assert made == {
        said("dim Bertha a little", do="lower", **BOILER),
        said("switch off Bertha for me", do="turn_off", **BOILER, value="10s"),
    }


FLOOR = {**BOILER, "floor": "minus one"}


@pytest.mark.parametrize(
    ("taught", "made"),
    [
        (
            [
                said("warm up Bertha", do="raise", **FLOOR),
                said("is Bertha running", do="tell", **FLOOR),
            ],
            said("dim Bertha a little", do="lower", **FLOOR),
        ),
        (
            [
                said("warm up Bertha", do="raise", floor="minus one", **BOILER),
                said("is Bertha running", do="tell", floor="minus one", **BOILER),
            ],
            said("dim Bertha a little", do="lower", floor="minus one", **BOILER),
        ),
        (
            [
                said("is Bertha on", ask="state", **BOILER),
                said("Bertha running?", ask="state", **BOILER),
            ],
            said("dim Bertha a little", do="lower", **BOILER),
        ),
        (
            [
                said("warm up Bertha", do="raise", **BOILER, for_="an hour"),
                said("is Bertha running", do="tell", **BOILER, for_="today"),
            ],
            said("dim Bertha a little", do="lower", **BOILER),
        ),
    ],
    ids=["after", "before", "what is done", "differs"],
)
def test_a_key_that_no_known_answer_has_stays_with_the_name(taught: list[Said], made: Said) -> None:
    """Where all examples of the name agree in it, and it cannot be what is done."""
    places = Places(KNOWN)
    (bertha,) = find_aliases(taught, places)
    rng = np.random.default_rng(0)
    found = {one for one in (places.put(bertha, rng) for _ in range(64)) if one is not None}

    assert made in found
    assert len(found) == 2


def test_a_number_that_no_known_answer_has_stays_a_number() -> None:
    """A floor of -1 is put into other commands as it was taught."""
    answer = '{"do":"%s","device":"boiler","floor":-1}'
    taught = [Said("warm up Bertha", answer % "raise"), Said("is Bertha on", answer % "tell")]
    known = [said("dim the lamp a little", do="lower", device="lamp")]
    places = Places(known)
    (bertha,) = find_aliases(taught, places)

    assert bertha.behind == (("floor", "-1"),)


def test_an_article_stays_where_it_was_taught() -> None:
    """Who says "the little star" goes on saying it."""
    places = Places(KNOWN)
    star = Alias(
        said="little star",
        meant=(("device", "star lamp"),),
        numbers=(0, 1),
        before=frozenset({"the"}),
    )
    rng = np.random.default_rng(0)
    made = {one.prompt for one in (places.put(star, rng) for _ in range(64)) if one is not None}

    assert made == {
        "dim the little star a little",
        "switch off the little star for me",
        "open the little star in the study",
    }


def test_answers_with_spaces_keep_them() -> None:
    """What is put in is written as the answer is."""
    known = [Said("dim the lamp", json.dumps({"do": "lower", "device": "lamp"}))]
    places = Places(known)
    alias = Alias(
        said="Bertha", meant=tuple(BOILER.items()), numbers=(0, 1), before=frozenset({"is"})
    )
    made = places.put(alias, np.random.default_rng(0))

    assert made == Said("dim Bertha", json.dumps({"do": "lower", **BOILER}))


@pytest.mark.parametrize("known", [[], [KNOWN[3]]])
def test_without_known_names_of_its_script_there_is_no_place(known: list[Said]) -> None:
    """An English name stands in no Chinese sentence."""
    alias = Alias(
        said="Bertha", meant=tuple(BOILER.items()), numbers=(0, 1), before=frozenset({"is"})
    )

    assert Places(known).put(alias, np.random.default_rng(0)) is None
