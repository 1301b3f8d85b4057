"""`onhand inspect`: what a bundle holds, from its manifest alone."""

from collections import Counter
from pathlib import Path
from typing import Annotated, cast

import typer

from onhand.cli import networks
from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import say, write, write_json, write_table
from onhand.core.bundle import Bundle, unchecked_bundle
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.core.manifest import LANGUAGE_MODEL, Variant
from onhand.core.plugins import ENGINES, NETWORK_ENGINES, load_plugin, plugin_names
from onhand.core.profile import DeviceProfile
from onhand.core.quantized import GroupFormat
from onhand.core.table_form import TableForm
from onhand.core.units import format_bytes
from onhand.device.learning.in_use import described, learned_here
from onhand.device.learning.lesson_files import read_lesson

__all__ = ["command"]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    here: Annotated[
        bool,
        typer.Option("--here", help="Show what runs it on this device, and why nothing else."),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PROFILE.toml",
            help="Foretell what would run it on another device: one of `onhand devices`, or a "
            "profile.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle holds and which engines can run it here.

    Only the manifest is read; `onhand verify` checks the files.

    Raises:
        InputError: if both a device and this one are asked for.
    """
    if here and device is not None:
        raise InputError("--here and --device are both given; give one of the two")
    bundle = unchecked_bundle(name)
    manifest = bundle.manifest
    if here or device is not None:
        from onhand.cli.outlooks import show_outlooks

        show_outlooks(bundle, device=device, home=context.obj.home(), as_json=as_json)
        return
    engines = {variant: _engines(bundle, variant) for variant in manifest.variants}
    home: Path = context.obj.home()
    learned = learned_here(bundle, home)
    if as_json:
        is_language = manifest.kind == LANGUAGE_MODEL
        found = _described(bundle, engines) if is_language else _network(bundle, engines, home)
        lesson = None if learned is None else _lesson(read_lesson(bundle))
        used = None if learned is None else described(learned)
        write_json({**found, "learned": used, "lesson": lesson})
        return
    if manifest.kind == LANGUAGE_MODEL:
        _show(bundle, engines)
    else:
        networks.describe(manifest, bundle, engines)
        networks.note_choice(bundle, networks.recalled(bundle, home))
    if learned is not None:
        write(f"learns    {read_lesson(bundle).sentence()}; used {learned.sentence()}\n")
        for sentence in learned.passed_over:
            say(f"warning: {sentence}")
    for variant, reasons in engines.items():
        for engine, reason in reasons.items():
            if reason is not None:
                say(f"note: {engine} cannot run {variant} here: {reason}")


def _network(
    bundle: Bundle, engines: dict[str, dict[str, str | None]], home: Path
) -> dict[str, object]:
    manifest, choice = bundle.manifest, networks.recalled(bundle, home)
    return {
        "chosen": None
        if choice is None
        else {"engine": choice.engine, "variant": choice.variant, "why": choice.sentence()},
        "default_variant": manifest.default_variant,
        "kind": manifest.kind,
        "manifest_sha256": bundle.manifest_sha256,
        "name": manifest.name,
        "network": manifest.network.to_json(),
        "provenance": dict(manifest.provenance),
        "size_bytes": bundle.size_bytes(),
        "variants": {
            name: {
                "engines": engines[name],
                "n_sparse_tensors": len(variant.sparse),
                "size_bytes": bundle.size_bytes(name),
            }
            for name, variant in manifest.variants.items()
        },
        "version": manifest.version,
    }


def _lesson(lesson: Lesson) -> dict[str, object]:
    """Return what can be learned."""
    return {
        "alpha": lesson.alpha,
        "kind": lesson.kind,
        "n_values": lesson.n_values,
        "rank": lesson.rank,
        "tensors": sorted({made.tensor for made in lesson.trainables.values()}),
        "variant": lesson.variant,
    }


def _described(bundle: Bundle, engines: dict[str, dict[str, str | None]]) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "context": manifest.decoder.context,
        "default_variant": manifest.default_variant,
        "kind": manifest.kind,
        "manifest_sha256": bundle.manifest_sha256,
        "n_parameters": manifest.decoder.n_parameters,
        "name": manifest.name,
        "provenance": dict(manifest.provenance),
        "size_bytes": bundle.size_bytes(),
        "variants": {
            name: {
                "accuracy_level": variant.accuracy_level,
                "bits_per_weight": _bits_per_weight(bundle, variant),
                "engines": engines[name],
                "formats": [
                    {
                        "bits": form.bits if form else 32,
                        "group_size": form.group_size if form else None,
                        "n_matrices": count,
                        "symmetric": form.symmetric if form else None,
                    }
                    for form, count in Counter(variant.matrices.values()).items()
                ],
                "n_scale_tables": _n_tables(variant),
                "n_sparse_tensors": len(variant.sparse) - _n_tables(variant),
                "size_bytes": bundle.size_bytes(name),
            }
            for name, variant in manifest.variants.items()
        },
        "version": manifest.version,
    }


def _show(bundle: Bundle, engines: dict[str, dict[str, str | None]]) -> None:
    manifest = bundle.manifest
    decoder = manifest.decoder
    write_table(
        [manifest.name, ""],
        [
            ("kind", f"{manifest.kind}, version {manifest.version}"),
            ("parameters", f"{decoder.n_parameters:,}"),
            ("shape", f"{len(decoder.layers)} layers, width {decoder.width}"),
            ("context", f"{decoder.context:,} tokens"),
            ("vocabulary", f"{decoder.vocab_size:,} tokens"),
            ("size of all files", format_bytes(bundle.size_bytes())),
            ("manifest", bundle.manifest_sha256),
        ],
    )
    write_table(
        ["variant", "weights", "bits/weight", "size", "engines here"],
        [
            (
                name + (" (default)" if name == manifest.default_variant else ""),
                _formats(variant),
                f"{_bits_per_weight(bundle, variant):.2f}",
                format_bytes(bundle.size_bytes(name)),
                ", ".join(e for e, reason in engines[name].items() if reason is None) or "none",
            )
            for name, variant in manifest.variants.items()
        ],
    )


def _engines(bundle: Bundle, variant: str) -> dict[str, str | None]:
    """Return why each engine cannot run a variant here; None where it can."""
    from onhand.device.probe import current_profile

    profile = current_profile()
    group = ENGINES if bundle.manifest.kind == LANGUAGE_MODEL else NETWORK_ENGINES
    return {name: _why_not(group, name, bundle, profile, variant) for name in plugin_names(group)}


def _why_not(
    group: str, name: str, bundle: Bundle, profile: DeviceProfile, variant: str
) -> str | None:
    from onhand.device.engines.base import Engine
    from onhand.device.networks.base import NetworkEngine

    try:
        engine = cast(type[Engine] | type[NetworkEngine], load_plugin(group, name))()
    except InputError as error:
        # Another's broken engine is a fact to show, no reason to show nothing.
        return str(error)
    return engine.why_not(bundle, profile, variant=variant)


def _formats(variant: Variant) -> str:
    counts = Counter(map(_format, variant.matrices.values()))
    formats = ", ".join(f"{n} x {form}" for form, n in counts.most_common())
    tables = _n_tables(variant)
    sparse = len(variant.sparse) - tables
    said = [formats]
    said += [f"{sparse} stored without zeros"] if sparse else []
    said += [f"scales of {tables} in 8 bits"] if tables else []
    return "; ".join(said)


def _n_tables(variant: Variant) -> int:
    """Return of how many matrices the scales are stored as a table."""
    return sum(isinstance(form, TableForm) for form in variant.sparse.values())


def _format(form: GroupFormat | None) -> str:
    if form is None:
        return "float32"
    kind = "symmetric" if form.symmetric else "asymmetric"
    return f"int{form.bits} in groups of {form.group_size}, {kind}"


def _bits_per_weight(bundle: Bundle, variant: Variant) -> float:
    shapes = bundle.manifest.decoder.matrices()
    n_weights = sum(rows * columns for rows, columns in shapes.values())
    stored = sum(
        form.size_bytes(shapes[name]) if form else 4 * shapes[name][0] * shapes[name][1]
        for name, form in variant.matrices.items()
    )
    without, whole = variant.sparse_bytes()
    stored += without - whole
    return stored * 8 / n_weights
