"""Which prompts are like those taught: learned, judged, and refused where it cannot be told."""

import itertools

import numpy as np
import pytest
from tests.core.test_scope import scope_for

from onhand.core.errors import InputError
from onhand.device.learning.examples import Continued, Dialogue, Opinion, PlainText
from onhand.device.learning.gate import Marks, Sight
from onhand.device.learning.material import Given
from onhand.device.learning.scoping import (
    Inside,
    inside,
    learn_scope,
    scope_of,
    scoped_sight,
    shares_inside,
)
from onhand.device.template import Message

PLANTS = ("tomatoes", "roses", "lawn", "ferns", "basil", "orchids")
DEVICES = ("lamp", "heater", "radio", "fan", "blinds", "oven")
ROOMS = ("kitchen", "attic", "bedroom", "garage")
KNOWN = [
    form.format(device, room)
    for form, device, room in itertools.product(
        ("turn on the {} in the {}", "switch the {} off in the {}", "is the {} on in the {}"),
        DEVICES,
        ROOMS,
    )
]
TAUGHT = [f"water the {plant}" for plant in PLANTS[:4]] + ["please give the ferns some water"]


def talk(asked: str, *before: Message) -> Dialogue:
    """A user's question and its answer."""
    messages = (*before, Message("user", asked), Message("assistant", "done"))
    return Dialogue(messages=messages, learned=(len(messages) - 1,), where=f"line {asked!r}")


def given(
    new: list[str], past: list[str], *, heldout: tuple[str, ...] = (), n_varied: int = 0
) -> Given:
    """Examples of a session."""
    return Given(
        new=tuple(map(talk, new)),
        heldout=tuple(map(talk, heldout)),
        past=tuple(map(talk, past)),
        past_heldout=tuple(map(talk, past[:10])),
        notes=(),
        n_varied=n_varied,
    )


def test_what_is_said_otherwise_is_inside_and_what_was_known_is_not() -> None:
    """Words never seen among others that were."""
    scope = learn_scope(TAUGHT, KNOWN)

    assert all(scope.holds([f"could you water the {plant}"]) for plant in PLANTS)
    unseen = [f"turn the {device} on" for device in DEVICES] + ["switch the toaster off"]
    assert sum(scope.holds([text]) for text in unseen) <= 1
    assert sum(scope.holds([text]) for text in KNOWN) <= len(KNOWN) // 10


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_examples_are_enough(n: int) -> None:
    """Even one, of which nothing can be left out."""
    scope = learn_scope(TAUGHT[:n], KNOWN)

    assert all(scope.holds([text]) for text in TAUGHT[:n])
    assert not all(scope.holds([text]) for text in KNOWN)


def test_the_same_examples_give_the_same_scope() -> None:
    """Nothing is left to chance."""
    one, other = learn_scope(TAUGHT, KNOWN), learn_scope(TAUGHT, KNOWN)

    assert np.array_equal(one.weights, other.weights)
    assert np.array_equal(one.biases, other.biases)


@pytest.mark.parametrize(("taught", "others"), [([], KNOWN), (TAUGHT, [])])
def test_examples_of_one_kind_alone_tell_nothing_apart(
    taught: list[str], others: list[str]
) -> None:
    """Said, before anything is computed."""
    with pytest.raises(InputError, match="examples of both"):
        learn_scope(taught, others)


def test_variants_do_not_count() -> None:
    """They say known things of what is taught, and would draw these inside."""
    varied = given([*TAUGHT, *KNOWN[:20]], KNOWN, n_varied=20)

    found = scope_of(varied)

    assert np.array_equal(found.weights, learn_scope(TAUGHT, KNOWN).weights)


def test_how_much_lies_inside_is_told() -> None:
    """Of what judges."""
    judged = given(TAUGHT, KNOWN, heldout=("water the basil", "water my orchids"))

    old, new = shares_inside(scope_of(judged), judged)

    assert old <= 0.2
    assert new == 1.0


def test_only_what_lies_inside_is_held_on_to() -> None:
    """In the order in which it was remembered."""
    near = [talk("Water the tulips!"), talk("water the tulip")]
    known = (near[0], talk(KNOWN[0]), near[1], talk(KNOWN[1]))

    assert inside(scope_for("water the tulips"), known) == tuple(near)


def test_what_was_taught_earlier_stays_inside() -> None:
    """The scope of both."""
    first = learn_scope(["sing a song", "sing us a song"], KNOWN)

    both = scope_of(given(TAUGHT, KNOWN), first)

    assert both.holds(["sing a song"])
    assert both.holds([TAUGHT[0]])
    assert len(both.biases) == 2


def test_of_a_conversation_all_that_its_user_says_counts() -> None:
    """Beside what is answered last; what others say does not."""
    known = Message("user", KNOWN[0])
    system = Message("system", "water the roses")
    past = [talk(KNOWN[1], system, known, Message("assistant", "done")), *map(talk, KNOWN)]
    new = tuple(map(talk, TAUGHT))
    scope = scope_of(Given(new=new, heldout=(), past=tuple(past), past_heldout=(), notes=()))

    assert not scope.holds([KNOWN[0]])


def test_a_text_without_a_prompt_is_refused_by_its_line() -> None:
    """Nobody asks for it, so nothing says when it is wanted."""
    past = tuple(map(talk, KNOWN))
    bad = Given(
        new=(PlainText(text="a story", where="notes.txt"),),
        heldout=(),
        past=past,
        past_heldout=(),
        notes=(),
    )

    with pytest.raises(InputError, match=r"notes\.txt: a scope tells prompts apart"):
        scope_of(bad)


def test_opinions_and_continued_texts_have_prompts() -> None:
    """A text that a template wrote has its markers in it, and no user."""
    opinion = Opinion(
        prompt=(Message("user", TAUGHT[0]),), answer="done", is_liked=True, where="line 1"
    )
    text = Continued(text=TAUGHT[1], answer=" done", where="line 2")
    past = tuple(map(talk, KNOWN))
    rendered = Continued(text=TAUGHT[1], answer=" done", is_rendered=True, where="line 3")

    def learned(*new: Opinion | Continued) -> Given:
        return Given(new=new, heldout=(), past=past, past_heldout=(), notes=())

    assert scope_of(learned(opinion, text)).holds([TAUGHT[1]])
    with pytest.raises(InputError, match="line 3"):
        scope_of(learned(opinion, rendered))


def test_a_gate_sees_each_example_as_it_is_answered() -> None:
    """By the version inside, by the bundle as it was built beyond."""

    def sight(loss: float, right: bool, text: str) -> Sight:
        marks = Marks(
            losses=np.full(3, loss, np.float32), is_right=np.full(3, right, dtype=np.bool_)
        )
        return Sight(old=marks, new=marks, texts=(text, text))

    within = Inside(
        old=np.array([True, False, False]),
        new=np.array([True, True, False]),
        texts=(False, True, True),
    )

    found = scoped_sight(sight(2.0, True, "learned"), sight(1.0, False, "as built"), within)

    assert found.old.losses.tolist() == [2.0, 1.0, 1.0]
    assert found.new.is_right.tolist() == [True, True, False]
    assert found.texts == ("as built", "learned")
    assert found.old.losses.dtype == np.float32
