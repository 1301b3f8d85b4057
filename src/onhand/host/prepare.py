"""What a build decides before its first weight is read, and what decides its bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from onhand import __version__
from onhand.core.errors import BundleCorrupt, SourceError
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.probe import current_profile
from onhand.device.text_files import TextFiles, parse_text_files
from onhand.device.threads import usable_threads
from onhand.host.adapters import merge_adapter
from onhand.host.costs.kept import calibration_for
from onhand.host.distil import check_torch
from onhand.host.learnable import add_lesson_to_plan
from onhand.host.model import Model, ShapesAlone
from onhand.host.options import BuildOptions
from onhand.host.pack import VariantPlan, plan_variants
from onhand.host.passes.as_is import choose_transforms
from onhand.host.passes.base import Pass, pass_options
from onhand.host.passes.quantize import Quantize
from onhand.host.plan import BuildPlan, calibration_tokens, make_plan, text_tokens
from onhand.host.shaping import add_to_forecast, plan_shaping
from onhand.host.sources import load_model
from onhand.host.texts import Texts, split_texts

__all__ = ["Prepared", "fingerprint", "load_with_adapter", "needs_text", "prepare", "provenance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A build before its first weight is read.

    Attributes:
        model: the source.
        shaped: what is stored: `model`, or what shaping makes of it, shapes alone until then.
        plans: the variants.
        texts: what calibrates, and what is held out.
        profile: of the device built for.
        threads: threads to use.
        forecast: what it will give and take.
    """

    model: Model
    shaped: Model
    plans: list[VariantPlan]
    texts: Texts
    profile: DeviceProfile
    threads: int
    forecast: BuildPlan


def load_with_adapter(source: str, options: BuildOptions) -> Model:
    """Read a source, and merge the adapter that was asked for.

    Args:
        source: a folder, or an id on a hub.
        options: what is asked for.
    """
    model = load_model(source)
    return model if options.adapter is None else merge_adapter(model, options.adapter)


def prepare(source: str, options: BuildOptions, home: Path | None, shown: Progress) -> Prepared:
    """Read a source's shapes and its text, and forecast the build.

    Args:
        source: a folder, or an id on a hub.
        options: what is asked for.
        home: the builder's state folder, for what this device's steps cost; None for none.
        shown: told how far it is.
    """
    shown.start("reading the source", 1)
    model = load_with_adapter(source, options)
    shown.advance(1)
    asked = _transforms(model, options)
    transforms, notes = choose_transforms(model, asked, keep_codes=options.keep_codes)
    model = replace(model, notes=(*model.notes, *notes))
    shape_plan = plan_shaping(model.decoder, options.shaping, tokens=text_tokens(model.decoder))
    plans = plan_variants(shape_plan.decoder, transforms)
    if any(plan.report.rounds for plan in plans):
        check_torch()
    files = _text_files(model)
    texts = split_texts(
        files.tokenizer,
        options.calibrate,
        model.decoder,
        max_tokens=text_tokens(model.decoder),
        calibration_tokens=calibration_tokens(model.decoder, plans),
        training_tokens=shape_plan.training_tokens,
        template=files.template,
    )
    threads = options.threads or usable_threads()
    device = options.device or current_profile()
    calibration, unknown = calibration_for(device, home)
    shaped = replace(model, weights=ShapesAlone(shape_plan.decoder)) if options.shaping else model
    forecast = make_plan(
        shaped,
        plans,
        accuracy_level=options.accuracy_level,
        threads=threads,
        calibration_tokens=texts.calibration.n_tokens,
        heldout_tokens=texts.heldout.n_tokens,
        device=device,
        calibration=calibration,
        notes=(*model.notes, *texts.notes, *unknown),
    )
    whole = add_to_forecast(forecast, model.decoder, shape_plan)
    return Prepared(
        model=model,
        shaped=shaped,
        plans=plans,
        texts=texts,
        profile=device,
        threads=threads,
        forecast=add_lesson_to_plan(whole, shape_plan.decoder, plans, options.learnable),
    )


def _transforms(model: Model, options: BuildOptions) -> Mapping[str, Pass]:
    if options.search is not None and model.coded is None:
        # Stands in until the search has found what each matrix is stored as.
        return {"int4": Quantize(method=options.search.method)}
    return options.transforms


def _text_files(model: Model) -> TextFiles:
    """Read a source's tokenizer, template and settings.

    Raises:
        SourceError: if one of them is damaged.
    """
    try:
        return parse_text_files(model.files, where=str(model.location))
    except BundleCorrupt as error:
        raise SourceError(str(error)) from error


def fingerprint(ready: Prepared, options: BuildOptions) -> dict[str, object]:
    """Return all that decides the bytes of a bundle.

    Args:
        ready: the build.
        options: what is asked for.
    """
    return provenance(ready, options) | {
        "heldout": ready.texts.heldout.sha256,
        "search": None if options.search is None else _search_options(options),
        "numpy": version("numpy"),
        "threads": ready.threads,
    }


def _search_options(options: BuildOptions) -> dict[str, object]:
    return {
        "budget": options.budget.limits(),
        "space": repr(options.search),
        "variants": options.n_variants,
    }


def needs_text(plans: Sequence[VariantPlan]) -> bool:
    """Say whether any variant is made with statistics of a text.

    Args:
        plans: the variants.
    """
    return any(plan.report.needs_calibration for plan in plans)


def provenance(ready: Prepared, options: BuildOptions) -> dict[str, object]:
    """Return what a bundle was made from: hashes and settings, no paths.

    Args:
        ready: the build.
        options: what is asked for.
    """
    calibrated = needs_text(ready.plans) or bool(options.shaping)
    calibration = ready.texts.calibration
    adapter = ready.model.adapter_sha256
    training = ready.texts.training
    shaping = {
        "shaping": [
            {**pass_options(step.transform), **asdict(step.guard)} for step in options.shaping
        ],
        "training_sha256": None if training is None else training.sha256,
    }
    return {
        **(shaping if options.shaping else {}),
        **({"adapter_sha256": adapter} if adapter else {}),
        **({"merged": dict(options.merged)} if options.merged else {}),
        **({} if options.learnable is None else {"learnable": options.learnable.to_json()}),
        "accuracy_level": options.accuracy_level,
        "calibration_sha256": calibration.sha256 if calibrated else None,
        "calibration_tokens": calibration.n_tokens if calibrated else 0,
        "family": ready.model.family,
        "onhand": __version__,
        "recipe": {plan.name: pass_options(plan.transform) for plan in ready.plans},
        "source_sha256": ready.model.sha256,
        "source_weight_bits": ready.model.weight_bits,
    }
