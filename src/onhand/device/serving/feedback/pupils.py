"""The models of a server that can learn: what each was given, and how far it has learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onhand.core.bundle import unchecked_bundle
from onhand.core.errors import InputError, OnhandError
from onhand.device.learning.idle_child import Job
from onhand.device.learning.in_use import open_versions
from onhand.device.learning.quarantine import Intake
from onhand.device.learning.taught import Progressed, progressed
from onhand.device.serving.feedback.recent import RecentAnswer
from onhand.device.serving.feedback.settings import LearningSettings
from onhand.device.serving.models.shelved import ShelvedModel, ShelvedNetwork
from onhand.device.text_files import read_template
from onhand.device.tools.telling import telling_of

__all__ = ["Pupil", "pupil_of"]


@dataclass(frozen=True, slots=True)
class Pupil:
    """A bundle that is served and can learn.

    Attributes:
        name: what requests call it.
        model: it, as it is served.
        bundle_sha256: hash of the manifest.
        root: the bundle's folder.
        folder: where what it learns is kept.
        intake: where feedback goes.
    """

    name: str
    model: ShelvedModel | ShelvedNetwork
    bundle_sha256: str
    root: Path
    folder: Path
    intake: Intake

    @property
    def version(self) -> int:
        """Number of the learned version that answers; 0 for the bundle as it was built."""
        return self.model.entry.version.learned.number

    def progressed(self) -> Progressed:
        """Return how far it has learned."""
        return progressed(self.folder)

    @property
    def n_new(self) -> int:
        """Examples taken since its last training."""
        return max(0, self.intake.n_taken - self.progressed().n_seen)

    def job(self, settings: LearningSettings, home: Path, *, threads: int) -> Job:
        """Return what a process is to learn of it."""
        return Job(
            bundle=str(self.root),
            bundle_sha256=self.bundle_sha256,
            home=str(home),
            method=settings.method,
            epochs=settings.epochs,
            rate=settings.rate,
            held_out=settings.held_out,
            remember=settings.remember,
            scope=settings.scope,
            threads=threads,
            seconds=settings.most_s,
            memory_bytes=settings.memory_bytes,
            energy_j=settings.most_energy_j,
            lowest_battery=settings.lowest_battery,
            cpu_share=settings.cpu_share,
            most_lost_points=settings.most_lost_points,
            most_lost_loss=settings.most_lost_loss,
            most_example_bytes=settings.most_example_bytes,
        )

    def shown(self, answer: RecentAnswer) -> tuple[str, str]:
        """Return a conversation with tools as the model got it, and the answer as it wrote it.

        Args:
            answer: of this model.

        Raises:
            InputError: if the template refuses the messages.
            BundleCorrupt: if the bundle's chat template is not valid.
        """
        prompt = answer.ask.prompt
        if isinstance(prompt, str):
            return prompt, answer.text
        bundle = unchecked_bundle(self.root)
        telling = telling_of(read_template(bundle))
        text = telling.render(prompt, answer.ask.tools)
        return text, telling.answer_text(answer.text, answer.calls)

    def described(self) -> Mapping[str, object]:
        """Return how it stands, for programs."""
        last = self.progressed()
        return {
            "version": self.version,
            "examples_waiting": self.n_new,
            "quarantined": self.intake.n_held,
            "last_verdict": last.outcome or None,
            "last_reason": last.reason or None,
        }


def pupil_of(
    model: ShelvedModel | ShelvedNetwork, *, home: Path, settings: LearningSettings
) -> Pupil | str:
    """Return a model as one that learns.

    Args:
        model: of this device.
        home: the state folder.
        settings: how it learns.

    Returns:
        The pupil; a sentence where the model cannot learn.
    """
    facts = model.entry.place().facts
    root = Path(facts.settings.bundle)
    if model.entry.settings.version != "current":
        return (
            f"{model.name} is served as version {model.entry.settings.version}, whatever it learns"
        )
    try:
        versions = open_versions(root, home)
    except InputError:
        return f"{model.name} cannot learn: its bundle was built without --learnable"
    except OnhandError as error:
        return f"{model.name} cannot learn: {error}"
    return Pupil(
        name=model.entry.name,
        model=model,
        bundle_sha256=facts.bundle_sha256,
        root=root,
        folder=versions.folder,
        intake=Intake(versions.folder, settings.limits),
    )
