"""Feedback that the model finds far less likely than others of its kind is set aside."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.device.learning.added import added_classes
from onhand.device.learning.base import Teachable
from onhand.device.learning.examples import Example
from onhand.device.learning.feedback import Feedback
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.in_use import versions_of, whole_values
from onhand.device.learning.judging import judge
from onhand.device.learning.material import Given, make_material, read_given
from onhand.device.learning.quarantine import Intake
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.suspicion import Limits, extreme_losses
from onhand.device.learning.taught_lines import write_answers
from onhand.device.learning.text_feeds import TextSource, sequences_of
from onhand.device.learning.training import Source
from onhand.device.text_files import read_text_files

__all__ = ["MOST_PAST", "Screening"]

MOST_PAST: Final = 200
"""Earlier examples of a kind whose losses say what is usual, the last ones."""

_Row = tuple[int, Feedback]
_Make = Callable[[Example], Source | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """Looks at the losses of what was taken.

    Attributes:
        bundle: a verified bundle.
        home: the state folder.
        intake: where what is suspect is put.
        limits: when a loss is extreme.
        threads: of one run.
    """

    bundle: Bundle
    home: Path
    intake: Intake
    limits: Limits
    threads: int

    def run(
        self,
        taken: Sequence[Feedback],
        n_screened: int,
        *,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Set aside what was taken since the last time and has an extreme loss.

        Args:
            taken: all of it, the oldest first.
            n_screened: of them, that were looked at before.
            is_interrupted: asked before each example: whether to leave it for another time.

        Returns:
            Whether all were looked at; else nothing is set aside, and the same call begins anew.

        Raises:
            InputError: if an example does not fit the lesson.
            EngineError: if the lesson's graph fails.
            ResourceError: if something cannot be read or written.
        """
        # The model said itself what was accepted, so its loss is low; a correction's never is.
        kinds = [_looked_at(taken, n_screened, is_correction=one) for one in (False, True)]
        losses = self._losses([row for rows in kinds for row in rows], is_interrupted)
        if losses is None:
            return False
        for rows in kinds:
            known = [(number, one, losses[number]) for number, one in rows if number in losses]
            new = [(one, loss) for number, one, loss in known if number >= n_screened]
            past = [loss for number, _, loss in known if number < n_screened]
            suspects = extreme_losses(
                np.array([loss for _, loss in new], dtype=np.float32),
                np.array(past, dtype=np.float32),
                self.limits,
            )
            for index, reason in suspects.items():
                self.intake.hold(new[index][0], reason)
        return True

    def _losses(
        self, rows: Sequence[_Row], is_interrupted: Callable[[], bool]
    ) -> dict[int, float] | None:
        """Return number -> loss by the version in use, without those of a class new to it.

        Returns:
            The losses; None where it was interrupted.

        Raises:
            InputError: if an example does not fit the lesson.
        """
        if not rows:
            return {}
        versions = versions_of(self.bundle, self.home)
        feedback = [one for _, one in rows]
        data = write_answers(versions.folder / "taken", "screened.jsonl", feedback)
        examples = read_given(data, LearnSettings(heldout=0.0)).new
        if len(examples) != len(feedback):
            raise InputError(f"{data}: {len(examples)} examples of {len(feedback)} were read")
        losses: dict[int, float] = {}
        with closing(open_lesson(self.bundle, threads=self.threads)) as teachable:
            values = dict(whole_values(self.bundle, versions, versions.current().version))
            make = self._sources(teachable, added_classes(versions.folder))
            for (number, _), example in zip(rows, examples, strict=True):
                if is_interrupted():
                    return None
                source = make(example)
                if source is not None:
                    marks = judge(teachable, values, source, batch=1)
                    losses[number] = float(marks.losses.mean())
        return losses

    def _sources(self, teachable: Teachable, added: Sequence[str]) -> _Make:
        """Return what makes an example ready to be judged; None of one of a new class."""
        if teachable.lesson.feeds == "tokens":
            files, context = read_text_files(self.bundle), self.bundle.manifest.decoder.context
            return lambda example: TextSource(sequences_of(example, files, context=context))

        def one(example: Example) -> Source | None:
            given = Given(new=(example,), heldout=(), past=(), past_heldout=(), notes=())
            material = make_material(self.bundle, teachable, given, added=added)
            is_new = material.known is not None and material.width > material.known
            return None if is_new else material.new

        return one


def _looked_at(taken: Sequence[Feedback], n_screened: int, *, is_correction: bool) -> list[_Row]:
    """Return what is new of a kind, and before it the last of what was looked at already."""
    rows = [
        (number, one)
        for number, one in enumerate(taken)
        if one.is_good and (one.verdict == "corrected") == is_correction
    ]
    new = [row for row in rows if row[0] >= n_screened]
    past = [row for row in rows if row[0] < n_screened]
    return [*past[-MOST_PAST:], *new] if new else []
