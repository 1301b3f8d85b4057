"""Training of a compressed network until it says again what the original said."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from onhand.core.errors import InputError
from onhand.device.probe import current_profile
from onhand.host.networks.graph import Graph
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.samples import Samples
from onhand.host.networks.training.answers import answer_of
from onhand.host.networks.training.coded import CodedForm, coded_weights, trainable_form
from onhand.host.networks.training.examples import AUGMENTATIONS, kept_in_memory, put_aside
from onhand.host.networks.training.features import attention_pairs, feature_pairs

if TYPE_CHECKING:
    from onhand.host.networks.torch_graph import TorchGraph
    from onhand.host.networks.training.distiller import Distiller, Goal
    from onhand.host.networks.training.loop import Outcome, Plan

__all__ = ["Distil"]

_SWITCHES: Final = ("auto", "on", "off")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "schedule": ("cosine", "constant"),
    "optimizer": ("adamw", "sgd"),
    "precision": ("auto", "float32", "bfloat16"),
    "keep_zeros": _SWITCHES,
    "quantized": _SWITCHES,
}
# From this share of zeros on, they were made by pruning; that of 30 % may leave a little less.
_PRUNED = 0.25
_UNITS: Final[Mapping[str, str]] = {
    "classes": "KL divergence in nat",
    "independent": "KL divergence in nat",
    "vector": "1 - cosine",
    "values": "relative squared error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Distil:
    """Train the weights on the original's answers. See `NetworkPass`.

    Needs no labels. The best weights on examples that are put aside are kept; where none are
    better than those given, those stay.

    Attributes:
        epochs: times to go through the examples.
        steps: in place of `epochs`, where it is above 0.
        batch: examples of one step.
        learning_rate: at its height.
        schedule: "cosine" to nothing, or "constant"; both rise first.
        warm_up: share of the steps in which it rises.
        optimizer: "adamw" or "sgd" with momentum.
        weight_decay: of matrices and kernels.
        clip: longest gradient, of matrices and kernels, and of all else; 0 for any.
        temperature: of soft answers of classes.
        alpha: share of known labels in the loss, where examples have them.
        features: weight of values inside made alike; 0 for none.
        feature_names: those values, "name" or "teacher's:student's"; empty for up to four that
            have the same name and shape in both.
        project: whether their widths may differ, a trained matrix between.
        attention: weight of maps of attention made alike; 0 for none.
        augment: what pictures are turned into on the way: "flip", "crop", "mixup".
        precision: of products: "float32", "bfloat16", or "auto": bfloat16 where the processor
            multiplies matrices of it and the network is not in integers.
        held_out: share of the examples that judges; 0 to judge by those that are learned from.
        judgements: how often it judges in all.
        patience: judgements without gain that end it; 0 to go on to the end.
        freeze: patterns of constants that stay.
        keep_zeros: whether weights that are zero stay zero; "auto" where a quarter and more are.
        quantized: whether integer weights are trained, in integers; "auto" where there are any.
        learn_scales: whether their scales, and those of activations, are trained as well.
        batch_statistics: whether batch normalisation uses and follows the batch.
        seed: of everything drawn.
    """

    name: ClassVar[str] = "distil"

    epochs: int = 10
    steps: int = 0
    batch: int = 16
    learning_rate: float = 1e-4
    schedule: str = "cosine"
    warm_up: float = 0.05
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    clip: float = 1.0
    temperature: float = 2.0
    alpha: float = 0.0
    features: float = 0.0
    feature_names: tuple[str, ...] = ()
    project: bool = False
    attention: float = 0.0
    augment: tuple[str, ...] = ()
    precision: str = "auto"
    held_out: float = 0.125
    judgements: int = 10
    patience: int = 0
    freeze: tuple[str, ...] = ()
    keep_zeros: str = "auto"
    quantized: str = "auto"
    learn_scales: bool = False
    batch_statistics: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_numbers(self)
        for key in ("augment", "freeze", "feature_names"):
            given: object = getattr(self, key)
            # A recipe's lists are lists, and a text would be a list of letters.
            if not isinstance(given, tuple | list) or not all(isinstance(x, str) for x in given):
                raise InputError(f"{key} is {given!r}, must be a list of texts")
        if odd := [kind for kind in self.augment if kind not in AUGMENTATIONS]:
            raise InputError(f"augment: {odd[0]!r} is none of {', '.join(AUGMENTATIONS)}")
        if self.alpha and "mixup" in self.augment:
            raise InputError("alpha and mixup exclude each other: a mixture has no label")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Train a graph.

        Args:
            graph: in float, or with integers between QuantizeLinear and DequantizeLinear.
            bench: with examples, and the teacher.

        Returns:
            The graph with other constants, what was trained, and what stayed.

        Raises:
            InputError: if torch or examples are missing, an operator is unknown to torch, or
                nothing is left to train.
            EngineError: if a network cannot run.
        """
        _check_torch()
        import torch

        if not len(bench.calibration):
            raise InputError("distil needs examples: give some with --data")
        torch.set_num_threads(bench.threads)
        form = self._form(graph)
        samples = kept_in_memory(bench.calibration)
        learned, judged = put_aside(samples, share=self.held_out, seed=self.seed)
        student = self._student(form.graph)
        trained, kept = self._choose(form, student)
        distiller = self._distiller(student, form, bench, learned, judged)
        zeros = self._zeros(form, trained)
        distiller.keep_zeros(zeros)
        distiller.keep_ranges({n: s for n, s in form.shadows.items() if n in trained})
        outcome = self._train(distiller, trained, graph, bench, samples)
        made = form.back(student.to_graph())
        changed = _changes(graph, made, {_source(form, name) for name in zeros})
        notes = self._notes(outcome, distiller, learned, judged)
        return PassResult(graph=made, changed=changed, kept=kept, notes=notes)

    def _form(self, graph: Graph) -> CodedForm:
        found = coded_weights(graph)
        if self.quantized == "on" and not found:
            raise InputError("quantized is 'on', and the network has no weights in integers")
        if self.quantized == "off" or not any("QuantizeLinear" in node.op for node in graph.nodes):
            return CodedForm(source=graph, graph=graph, shadows={})
        return trainable_form(graph, learn_scales=self.learn_scales)

    def _student(self, graph: Graph) -> "TorchGraph":
        from onhand.host.networks.torch_graph import TorchGraph

        return TorchGraph(graph, batch_statistics=self.batch_statistics)

    def _choose(
        self, form: CodedForm, student: "TorchGraph"
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the constants to train, and why others stay.

        Raises:
            InputError: if a pattern fits none, or nothing is left.
        """
        from onhand.host.networks.torch_graph import weight_names

        # A scale that has a factor is trained through it.
        scales = {form.sources[factor] for factor in form.factors}
        weights = [name for name in weight_names(form.graph) if name not in scales]
        names = dict.fromkeys((*weights, *form.factors))
        kept: dict[str, str] = {}
        for pattern in self.freeze:
            fits = [name for name in names if fnmatchcase(_source(form, name), pattern)]
            if not fits and not any(fnmatchcase(name, pattern) for name in kept):
                raise InputError(f"freeze: {pattern!r} fits no constant that could be trained")
            for name in fits:
                kept[_source(form, name)] = f"frozen by {pattern!r}"
                del names[name]
        if not names:
            raise InputError("nothing is left to train")
        if self.quantized == "off":
            stays = "integers stay with quantized = 'off'"
            kept |= dict.fromkeys(coded_weights(form.source), stays)
        student.train_only(names)
        return tuple(names), kept

    def _distiller(
        self,
        student: "TorchGraph",
        form: CodedForm,
        bench: Workbench,
        learned: Samples,
        judged: Samples,
    ) -> "Distiller":
        from onhand.host.networks.training.distiller import Distiller

        return Distiller(
            student,
            bench.original,
            self._goal(form, bench),
            learned=learned,
            judged=judged,
            batch=self.batch,
            threads=bench.threads,
            seed=self.seed,
        )

    def _goal(self, form: CodedForm, bench: Workbench) -> "Goal":
        from onhand.host.networks.training.distiller import Goal

        teacher, student = bench.original, form.graph
        ours, theirs = answer_of(student, bench.task), answer_of(teacher, bench.task)
        if len(ours.names) != len(theirs.names) or not ours.names:
            raise InputError(
                f"the teacher gives {len(theirs.names)} arrays of numbers, the student "
                f"{len(ours.names)}: they must give the same"
            )
        if self.alpha and bench.calibration.labels is None:
            raise InputError("alpha is above 0, and the examples have no labels")
        if self.alpha and ours.kind != "classes":
            raise InputError(f"alpha is for scores of classes, the network gives {ours.kind}")
        pairs = (
            feature_pairs(teacher, student, named=self.feature_names, project=self.project)
            if self.features
            else ()
        )
        return Goal(
            ours=ours,
            theirs=theirs,
            temperature=self.temperature,
            alpha=self.alpha,
            features=pairs,
            feature_weight=self.features,
            attention=attention_pairs(teacher, student) if self.attention else (),
            attention_weight=self.attention,
            augment=tuple(self.augment),
            bfloat16=self._takes_bfloat16(is_coded=bool(form.shadows)),
        )

    def _takes_bfloat16(self, *, is_coded: bool) -> bool:
        if self.precision != "auto":
            return self.precision == "bfloat16"
        # The rounding of bfloat16 is coarser than that to codes.
        return not is_coded and "amx_bf16" in current_profile().instruction_sets

    def _zeros(self, form: CodedForm, trained: Sequence[str]) -> tuple[str, ...]:
        """Return the constants whose zeros stay."""
        if self.keep_zeros == "off":
            return ()
        least = _PRUNED if self.keep_zeros == "auto" else 1e-9
        return tuple(
            name
            for name in trained
            if (array := form.graph.constants[name]).ndim > 1 and np.mean(array == 0) >= least
        )

    def _train(
        self,
        distiller: "Distiller",
        trained: Sequence[str],
        graph: Graph,
        bench: Workbench,
        samples: Samples,
    ) -> "Outcome":
        from onhand.host.networks.training.loop import train

        student = distiller.student
        parameters = {name: student.weight(name) for name in trained}
        parameters |= {f"projection {n}": p for n, p in distiller.projections.items()}
        state = {name: student.weight(name).data for name in student.names}
        state |= {name: parameter.data for name, parameter in parameters.items()}
        return train(
            distiller,
            parameters,
            state,
            self._plan(distiller.n_batches),
            folder=bench.folder,
            fingerprint=self._fingerprint(graph, bench, samples),
            progress=bench.progress,
        )

    def _plan(self, n_batches: int) -> "Plan":
        from onhand.host.networks.training.loop import Plan

        steps = self.steps or self.epochs * n_batches
        return Plan(
            steps=steps,
            learning_rate=self.learning_rate,
            warm_up=self.warm_up,
            decay=self.schedule,
            weight_decay=self.weight_decay,
            optimizer=self.optimizer,
            clip=self.clip,
            judge_every=max(1, -(-steps // self.judgements)),
            patience=self.patience,
            seed=self.seed,
        )

    def _fingerprint(self, graph: Graph, bench: Workbench, samples: Samples) -> str:
        import torch

        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for one in (graph, bench.original):
            digest.update(model_bytes(one))
        digest.update(f"{bench.task} {bench.threads} {torch.__version__} {len(samples)}".encode())
        digest.update(repr(samples.labels and list(samples.labels)).encode())
        for i in (0, len(samples) - 1):
            for name, array in samples.feeds[i].items():
                digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _notes(
        self, outcome: "Outcome", distiller: "Distiller", learned: Samples, judged: Samples
    ) -> tuple[str, ...]:
        unit = _UNITS[distiller.answer_kind]
        where = f"{len(judged)} examples put aside" if len(judged) else "the examples learned from"
        if not outcome.after < outcome.before:
            return (
                f"training did not help: {unit} on {where} stays {outcome.before:.4g}, and the "
                f"weights as they were, after {outcome.steps} steps",
            )
        ended = ", ended by patience" if outcome.stopped else ""
        notes = [
            f"{unit} on {where}: {outcome.before:.4g} before, {outcome.after:.4g} after "
            f"{outcome.steps} steps over {len(learned)} examples{ended}"
        ]
        return tuple(notes)


def _check_choices(options: Distil) -> None:
    for key, known in _CHOICES.items():
        if (value := getattr(options, key)) not in known:
            raise InputError(f"{key} is {value!r}, must be one of {', '.join(known)}")


def _check_numbers(options: Distil) -> None:
    for key in ("epochs", "batch", "judgements"):
        if (number := getattr(options, key)) < 1:
            raise InputError(f"{key} is {number}, must be 1 or more")
    for key in ("learning_rate", "temperature"):
        if not (number := getattr(options, key)) > 0:
            raise InputError(f"{key} is {number}, must be above 0")
    for key in ("steps", "weight_decay", "clip", "features", "attention", "patience", "seed"):
        if not (number := getattr(options, key)) >= 0:
            raise InputError(f"{key} is {number}, must be 0 or more")
    for key in ("held_out", "warm_up"):
        if not 0 <= (number := getattr(options, key)) < 1:
            raise InputError(f"{key} is {number}, must be from 0 to below 1")
    if not 0 <= options.alpha <= 1:
        raise InputError(f"alpha is {options.alpha}, must be from 0 to 1")


def _check_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError("distil needs torch: pip install 'onhand[host,train]'") from error


def _source(form: CodedForm, name: str) -> str:
    """Return what a trained constant is called in the graph that was given."""
    if name in form.shadows:
        return form.shadows[name].node.inputs[0]
    return form.sources.get(name, name)


def _changes(before: Graph, after: Graph, zeros: set[str]) -> dict[str, str]:
    """Say what became of each constant."""
    made: dict[str, str] = {}
    for name, old in before.constants.items():
        new = after.constants[name]
        if new is old or np.array_equal(new, old, equal_nan=old.dtype.kind == "f"):
            continue
        share = np.mean(new != old)
        is_coded = old.dtype.kind != "f"  # codes of 4 bits are of no kind that numpy knows
        what = f"trained, {share:.1%} of the codes changed" if is_coded else "trained"
        made[name] = f"{what}, zeros kept" if name in zeros else what
    return made
