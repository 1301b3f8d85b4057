"""What is taught, what judges, and what is to be remembered: from files to what graphs take."""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Teachable
from onhand.device.learning.class_feeds import ClassSource, classes_of
from onhand.device.learning.example_files import read_examples
from onhand.device.learning.examples import Example, Labelled, Opinion, PlainText, Preference
from onhand.device.learning.lesson_files import class_names
from onhand.device.learning.preference_feeds import liked, preference_source
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.text_feeds import TextSource, sequences_of
from onhand.device.learning.training import Source
from onhand.device.learning.variants import varied
from onhand.device.text_files import TextFiles, read_text_files

__all__ = ["Given", "Material", "make_material", "read_given"]

_JUDGING_SHARE: Final = 0.2
_MOST_JUDGING: Final = 200  # half a point is one of these
_LEAST_END: Final = 200  # letters of a text, that can judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Examples as they were read.

    Attributes:
        new: to be taught.
        heldout: that judge what was learned.
        past: of what is known, for methods that hold on to it.
        past_heldout: that judge what was forgotten.
        notes: what the user should know, a sentence each.
        n_varied: how many of `new`, the last ones, are variants of the others.
    """

    new: tuple[Example, ...]
    heldout: tuple[Example, ...]
    past: tuple[Example, ...]
    past_heldout: tuple[Example, ...]
    notes: tuple[str, ...]
    n_varied: int = 0

    def digest(self) -> str:
        """Return what tells these examples from others: of files their size and time as well."""
        made = hashlib.sha256()
        for group in (self.new, self.heldout, self.past, self.past_heldout):
            made.update(f"{len(group)}\n".encode())
            for one in group:
                made.update(f"{one!r} {_stamp(one)}\n".encode())
        return made.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Examples as the lesson takes them; see `Given`.

    Attributes:
        new: to be taught.
        heldout: that judge what was learned.
        past: of what is known.
        past_heldout: that judge what was forgotten.
        width: classes that are told apart, or tokens of the vocabulary.
        known: how many of the classes there were before; None for a language model.
        classes: names of all classes; empty for a language model.
    """

    new: Source
    heldout: Source
    past: Source
    past_heldout: Source
    width: int
    known: int | None
    classes: tuple[str, ...]

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the classes that the model does not have; none of a language model."""
        return self.classes[self.known or 0 :]


def read_given(data: Path, settings: LearnSettings, *, carried: Path | None = None) -> Given:
    """Read all files, and hold some examples back.

    Args:
        data: what is taught.
        settings: what is held out and remembered.
        carried: the bundle's own examples, remembered where the settings name none.

    Raises:
        InputError: if a file cannot be read, or a line in it is bad.
    """
    read = read_examples(data)
    notes = list(read.notes)
    if isinstance(settings.heldout, Path):
        judges = read_examples(settings.heldout)
        new, heldout = read.examples, judges.examples
        notes += judges.notes
    else:
        new, heldout = _split(read.examples, settings.heldout, seed=settings.seed)
        if settings.heldout and not heldout:
            notes.append(
                f"too few examples to hold some back ({len(new)}): nothing judges how the model "
                "does on others; give some with --heldout FILE"
            )
    past: tuple[Example, ...] = ()
    past_heldout: tuple[Example, ...] = ()
    remember = carried if settings.remember is None else settings.remember
    if remember is not None:
        known = read_examples(remember)
        past, past_heldout = _split(
            known.examples, _JUDGING_SHARE, seed=settings.seed, most=_MOST_JUDGING
        )
        notes += known.notes
    n_varied = 0
    if settings.vary:
        rng = np.random.default_rng([settings.seed, 3])
        made = varied(new, past, each=settings.vary, rng=rng)
        notes.append(f"{len(made)} variants of {len(new)} examples are taught as well")
        new, n_varied = (*new, *made), len(made)
    return Given(
        new=new,
        heldout=heldout,
        past=past,
        past_heldout=past_heldout,
        notes=tuple(notes),
        n_varied=n_varied,
    )


def make_material(
    bundle: Bundle, teachable: Teachable, given: Given, *, added: Sequence[str]
) -> Material:
    """Turn examples into what a lesson takes.

    Args:
        bundle: a verified bundle.
        teachable: its lesson.
        given: the examples.
        added: names of classes that were added before.

    Returns:
        All of them; a bad one is an error that names it.

    Raises:
        InputError: if an example is of another kind, or does not fit.
        BundleCorrupt: if a file of the bundle is missing or not valid.
    """
    groups = (given.new, given.heldout, given.past, given.past_heldout)
    if teachable.lesson.feeds == "tokens":
        files, decoder = read_text_files(bundle), bundle.manifest.decoder
        # What judges, and what is to be remembered, are answers that were liked.
        texts = [_texts(liked(group), files, decoder.context) for group in groups[1:]]
        return Material(
            new=_taught(given.new, files, decoder.context),
            heldout=texts[0],
            past=texts[1],
            past_heldout=texts[2],
            width=decoder.vocab_size,
            known=None,
            classes=(),
        )
    names, n_known = _known_classes(bundle, teachable.lesson, added)
    classes = classes_of(
        (*given.new, *given.past),
        names,
        n_known=n_known,
        can_grow=any(made.grows for made in teachable.lesson.trainables.values()),
    )
    # What judges brings no class of its own: nobody would teach it.
    classes_of((*given.heldout, *given.past_heldout), classes, n_known=0, can_grow=False)
    sources = [ClassSource(bundle, teachable, classes, group) for group in groups]
    return Material(
        new=sources[0],
        heldout=sources[1],
        past=sources[2],
        past_heldout=sources[3],
        width=len(classes),
        known=n_known,
        classes=classes,
    )


def _taught(examples: Sequence[Example], files: TextFiles, context: int) -> Source:
    if any(isinstance(one, Preference | Opinion) for one in examples):
        return preference_source(examples, files, context=context)
    return _texts(examples, files, context)


def _texts(examples: Iterable[Example], files: TextFiles, context: int) -> TextSource:
    source = TextSource()
    for one in examples:
        source.add(sequences_of(one, files, context=context))
    return source


def _known_classes(
    bundle: Bundle, lesson: Lesson, added: Sequence[str]
) -> tuple[tuple[str, ...], int]:
    """Return the names of all known classes, none where they have none; and their number.

    Raises:
        InputError: if nobody says how many there are.
    """
    names = class_names(bundle, lesson)
    heads = [made.shape[0] for made in lesson.trainables.values() if made.grows]
    last = bundle.manifest.network.outputs[0].shape
    n_classes = len(names) or (heads[0] if heads else (last[-1] if last else None))
    if n_classes is None:
        raise InputError(f"{bundle.root}: nothing says how many classes its network tells apart")
    if not names and added:
        names = tuple(str(number) for number in range(n_classes))
    return (*names, *added), n_classes + len(added)


def _split(
    examples: tuple[Example, ...], share: float, *, seed: int, most: int = sys.maxsize
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Hold a share back, at most so many, chosen by chance; the others stay in their order.

    Of one long text its end is held back.
    """
    if len(examples) == 1 and isinstance(examples[0], PlainText):
        return _without_its_end(examples[0], share)
    n_held = min(int(len(examples) * share), len(examples) - 1, most)
    if n_held < 1:
        return examples, ()
    held = set(np.random.default_rng([seed, 1]).permutation(len(examples))[:n_held].tolist())
    kept = tuple(one for i, one in enumerate(examples) if i not in held)
    return kept, tuple(examples[i] for i in sorted(held))


def _without_its_end(
    whole: PlainText, share: float
) -> tuple[tuple[PlainText, ...], tuple[PlainText, ...]]:
    at = len(whole.text) - int(len(whole.text) * share)
    if len(whole.text) - at < _LEAST_END:
        return (whole,), ()
    # Where a line ends, if one does so soon before, else a word.
    near = whole.text.rfind("\n", at - _LEAST_END, at)
    near = whole.text.rfind(" ", at - _LEAST_END, at) if near < 0 else near
    at = at if near < 0 else near + 1
    end = replace(whole, text=whole.text[at:], where=f"{whole.where}, its end")
    return (replace(whole, text=whole.text[:at]),), (end,)


def _stamp(example: Example) -> str:
    """Return size and time of an example's file, "" where it has none.

    Raises:
        InputError: if it cannot be read.
    """
    if not isinstance(example, Labelled) or not isinstance(example.given, Path):
        return ""
    try:
        found = example.given.stat()
    except OSError as error:
        raise InputError(f"{example.where}: cannot be read: {error.strerror}") from error
    return f"{found.st_size} {found.st_mtime_ns}"
