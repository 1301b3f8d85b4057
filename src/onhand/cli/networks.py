"""Commands on bundles of networks that are no language models."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from onhand.cli.learned import note_learned
from onhand.cli.measurements import write_measurements
from onhand.cli.output import say, write, write_json, write_table
from onhand.cli.progress import shown_progress
from onhand.core.bundle import Bundle, read_bundle, read_manifest
from onhand.core.errors import EngineUnavailable, InputError, OnhandError
from onhand.core.feed import TextFeed
from onhand.core.manifest import NETWORK, Manifest
from onhand.core.units import format_bytes, format_seconds
from onhand.device.networks.base import Array

if TYPE_CHECKING:
    from onhand.device.networks.session import NetworkSession
    from onhand.device.networks.variants import Choice

__all__ = [
    "Ways",
    "bench",
    "describe",
    "finds_boxes",
    "is_network",
    "note_choice",
    "recalled",
    "refuse",
    "refuse_for_text",
    "run",
    "ways",
]


def is_network(root: Path) -> bool:
    """Say whether a bundle holds a network that is no language model.

    What is wrong with a bundle, those say that open it.
    """
    try:
        return read_manifest(root)[0].kind == NETWORK
    except OnhandError:
        return False


def finds_boxes(root: Path) -> bool:
    """Say whether the answers of a bundle's network are boxes."""
    try:
        manifest, _ = read_manifest(root)
    except OnhandError:
        return False
    return manifest.kind == NETWORK and manifest.network.detection is not None


def refuse(context: typer.Context, *names: str, why: str) -> None:
    """Refuse options that do not go with a bundle.

    Args:
        context: of the command.
        names: of its parameters.
        why: what they are for.

    Raises:
        InputError: if one was given.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name != "DEFAULT":
            raise InputError(f"{parameter.opts[0]} is for {why}; leave it out")


def refuse_for_text(context: typer.Context, root: Path, *names: str) -> None:
    """Refuse options of networks for what `is_network` calls none.

    Args:
        context: of the command.
        root: the bundle's folder; there may be none.
        names: of the command's parameters.

    Raises:
        InputError: if one was given; what is wrong with the bundle is said first.
    """
    try:
        refuse(context, *names, why="networks that are no language models")
    except InputError:
        read_manifest(root)
        raise


@dataclass(frozen=True, slots=True)
class Ways:
    """A bundle and how to run it.

    Attributes:
        root: the bundle's folder.
        variant: one of its variants; None for the fastest.
        engine: name of one; None for the fastest.
        threads: of one run; None for what this process may use.
    """

    root: Path
    _: KW_ONLY
    variant: str | None
    engine: str | None
    threads: int | None


def ways(context: typer.Context) -> Ways:
    """Return the bundle and the ways that a command's options name."""
    asked = context.params
    return Ways(
        asked["name"],
        variant=asked["variant"],
        engine=asked["engine"],
        threads=asked["threads"],
    )


def bench(ways: Ways, runs: int, *, version: int, home: Path, as_json: bool) -> None:
    """Measure a network's speed, memory and energy.

    Args:
        ways: the bundle, and how.
        runs: how often each figure is taken.
        version: learned on this device; 0 for the bundle as it was built.
        home: the state folder.
        as_json: whether a program reads the figures.
    """
    from onhand.device.learning.network_in_use import network_in_use
    from onhand.device.networks.bench import bench_network
    from onhand.device.networks.variants import choose_quickest

    with shown_progress() as progress:
        choice = choose_quickest(
            network_in_use(read_bundle(ways.root), home, version)[0],
            variant=ways.variant,
            engine=ways.engine,
            threads=ways.threads,
            home=home,
            progress=progress,
        )
        figures, _ = bench_network(
            ways.root,
            variant=choice.variant,
            engine=choice.engine,
            threads=ways.threads,
            runs=runs,
            home=home,
            version=version,
            progress=progress,
        )
    say(f"note: {choice.sentence()}")
    write_measurements(figures, as_json=as_json)


def run(
    ways: Ways,
    inputs: list[Path],
    texts: list[str],
    top: int,
    *,
    version: int | None,
    home: Path,
    as_json: bool,
) -> None:
    """Answer examples, each on a line of its own.

    Args:
        ways: the bundle, and how.
        inputs: files.
        texts: texts, for a network that takes them.
        top: classes to show.
        version: learned on this device; 0 for the bundle as it was built; None for the one in use.
        home: the state folder.
        as_json: whether a program reads the answers.

    Raises:
        InputError: if there is nothing to answer, or of the wrong kind.
    """
    from onhand.device.networks.session import open_session

    with open_session(
        ways.root,
        variant=ways.variant,
        engine=ways.engine,
        threads=ways.threads,
        version=version,
        home=home,
    ) as session:
        note_learned(session.learned)
        if session.choice.variants:
            say(f"note: {session.choice.sentence()}")
        if not inputs and not texts:
            takes_texts = isinstance(session.network.feed, TextFeed)
            takes = "--prompt TEXT" if takes_texts else "--input FILE"
            raise InputError(f"nothing to answer: give {takes}")
        answers: list[dict[str, object]] = []
        for name, feeds, size in _examples(session, inputs, texts):
            begun = time.perf_counter()
            outputs = session.run(feeds)
            seconds = time.perf_counter() - begun
            answer = _answer(session, outputs, top, size)
            answers.append({"input": name, "seconds": seconds, **answer})
            if not as_json:
                _show(name, answer, seconds)
    if as_json:
        choice = session.choice
        write_json({
            "answers": answers,
            "engine": choice.engine,
            "variant": choice.variant,
            "version": session.learned.number,
        })


def _examples(
    session: "NetworkSession", inputs: list[Path], texts: list[str]
) -> Iterator[tuple[str, dict[str, Array], tuple[int, int] | None]]:
    for path in inputs:
        yield str(path), *session.read_example(path)
    for text in texts:
        read = session.read(text)
        if any(read.cut):
            say(f"note: the text is longer than {session.max_tokens} tokens: its end was cut")
        yield text, read.feeds, None


def _answer(
    session: "NetworkSession",
    outputs: Mapping[str, Array],
    top: int,
    size: tuple[int, int] | None,
) -> dict[str, object]:
    from onhand.device.networks.answers import CLASSIFIES

    if session.network.task in CLASSIFIES:
        return {
            "classes": [
                {"index": one.index, "label": one.label, "probability": one.share}
                for one in session.likeliest(outputs, top=top)
            ]
        }
    if session.network.detection is not None:
        return {"boxes": [asdict(box) for box in session.boxes(outputs, size)]}
    return {"outputs": {name: array.tolist() for name, array in outputs.items()}}


def _show(name: str, answer: Mapping[str, object], seconds: float) -> None:
    classes = answer.get("classes")
    if isinstance(classes, list):
        said = ", ".join(f"{one['label']} {one['probability']:.1%}" for one in classes)
        write(f"{name}: {said} ({format_seconds(seconds)})\n")
        return
    boxes = answer.get("boxes")
    if isinstance(boxes, list):
        said = f"{len(boxes)} box{'' if len(boxes) == 1 else 'es'}"
        write(f"{name}: {said} ({format_seconds(seconds)})\n")
        for box in boxes:
            place = " ".join(f"{key} {box[key]:.0f}" for key in ("x", "y", "width", "height"))
            write(f"  {box['label']} {box['score']:.1%} at {place}\n")
        return
    outputs = answer["outputs"]
    if isinstance(outputs, dict):
        for key, numbers in outputs.items():
            write(f"{name}: {key}: {_shortened(numbers)} ({format_seconds(seconds)})\n")


def _shortened(numbers: object) -> str:
    text = str(numbers)
    return text if len(text) <= 200 else f"{text[:200]} ... (all of it with --json)"


def recalled(bundle: Bundle, home: Path) -> "Choice | None":
    """Return what opening takes of several variants, where that is known; see `recall_choice`."""
    from onhand.device.networks.variants import recall_choice

    try:
        return recall_choice(bundle, home=home)
    except EngineUnavailable:
        return None


def note_choice(bundle: Bundle, choice: "Choice | None") -> None:
    """Say which of several variants is opened.

    Args:
        bundle: of a network.
        choice: from `recalled`.
    """
    from onhand.device.networks.variants import allowed_variants

    if len(bundle.manifest.variants) == 1:
        return
    allowed, refused = allowed_variants(bundle)
    if choice is not None:
        say(f"note: opening takes {choice.sentence()}")
        return
    others = "".join(f"; {name} {why}" for name, why in refused.items())
    what = (
        f"times {', '.join(allowed)} once and takes the quickest"
        if len(allowed) > 1
        else f"takes variant {allowed[0]}"
    )
    say(f"note: opening {what}{others}")


def describe(
    manifest: Manifest, bundle: Bundle, engines: Mapping[str, Mapping[str, str | None]]
) -> None:
    """Show what a bundle of a network holds.

    Args:
        manifest: the bundle's.
        bundle: the bundle.
        engines: variant -> engine -> why it cannot run it here, or None.
    """
    network = manifest.network
    rows = [
        ("kind", f"{manifest.kind} for {network.task}, version {manifest.version}"),
        ("parameters", f"{network.n_parameters:,}"),
    ]
    for what, arrays in (("input", network.inputs), ("output", network.outputs)):
        for info in arrays:
            shape = " x ".join("any" if size is None else str(size) for size in info.shape)
            rows.append((what, f"{info.name}: {info.dtype} {shape}"))
    feed = "the caller's arrays" if network.feed is None else type(network.feed).__name__
    if network.detection is not None:
        rows.append(("boxes", f"read from {network.detection.layout}"))
    rows += [
        ("fed with", feed.removesuffix("Feed").lower()),
        ("labels", str(network.n_labels)),
        ("size of all files", format_bytes(bundle.size_bytes())),
        ("manifest", bundle.manifest_sha256),
    ]
    write_table([manifest.name, ""], rows)
    write_table(
        ["variant", "size", "tensors without zeros", "engines here"],
        [
            (
                name + (" (default)" if name == manifest.default_variant else ""),
                format_bytes(bundle.size_bytes(name)),
                str(len(variant.sparse)),
                ", ".join(e for e, reason in engines[name].items() if reason is None) or "none",
            )
            for name, variant in manifest.variants.items()
        ],
    )
