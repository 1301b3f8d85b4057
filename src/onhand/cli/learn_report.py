"""What `onhand learn` says: before and after, for people and for programs."""

from collections.abc import Mapping

from onhand.cli.output import counted, say, write, write_json, write_table
from onhand.core.units import format_bytes, format_seconds
from onhand.device.learning.learned import Foreseen, Learned

__all__ = ["write_foreseen", "write_learned"]


def write_learned(made: Learned, *, as_json: bool) -> None:
    """Write what came of a training."""
    if as_json:
        write_json(made.to_json())
        return
    if made.ended == "interrupted":
        say(
            f"interrupted after step {made.steps} of {made.n_steps}; the same command goes on "
            "from there"
        )
        return
    rows = [
        *_rows("new", made.figures),
        *_rows("old", made.figures),
    ]
    if rows:
        write_table(("judged on", "figure", "before", "after"), rows)
    for line in _sentences(made):
        write(line + "\n")


def _rows(which: str, figures: Mapping[str, float]) -> list[tuple[str, ...]]:
    n = round(figures.get(f"{which}_examples", 0))
    if not n:
        return []
    rows = []
    for figure, kind in (("accuracy", "right"), ("loss", "loss")):
        before, after = figures.get(f"{which}_{figure}_before"), figures.get(f"{which}_{figure}")
        if before is None or after is None:
            continue
        shown = [f"{one:.1%}" if figure == "accuracy" else f"{one:.4g}" for one in (before, after)]
        rows.append((f"{counted(n, f'{which} examples')}, held out", kind, *shown))
    return rows


def _remembers(method: str) -> bool:
    return any(name in method for name in ("replay", "der++", "er-ace"))


def _sentences(made: Learned) -> list[str]:
    joules = ""
    if made.energy_j is not None:
        joules = f", {made.energy_j:.3g} J ({'estimated' if made.energy_estimated else 'measured'})"
    lines = [
        f"{counted(made.examples, 'examples')} in {counted(made.steps, 'steps')} by {made.method}: "
        f"{format_seconds(made.seconds)}{joules}, at most {format_bytes(made.peak_memory_bytes)} "
        "of memory"
    ]
    # The loss of preferences is that of a weighted sum, which says nothing by itself.
    if len(made.losses) > 1 and not made.method.startswith(("dpo", "kto")):
        # A first step has nothing to remember yet: without the words its loss looks too small.
        added = ", where remembered examples add theirs" if _remembers(made.method) else ""
        lines.append(
            f"loss: {made.losses[0]:.3g} in the first step, {made.losses[-1]:.3g} in the "
            f"last{added}"
        )
    if made.ended == "ceiling":
        lines.append(f"ended early: {made.why}")
    if made.skipped:
        lines.append(f"skipped for numbers that were not finite: {counted(made.skipped, 'steps')}")
    if made.added_classes:
        lines.append(f"new classes: {', '.join(made.added_classes)}")
    if not (made.heldout or made.past_heldout):
        lines.append("nothing judged what it can do now: no example was held out or remembered")
    if made.is_used:
        lines.append(f"version {made.version} passed its gate and is in use")
    elif made.is_accepted:
        lines.append(f"version {made.version} passed its gate; it is not in use")
    else:
        lines.append(f"version {made.version} was refused by its gate and is not used:")
        lines += [f"  {reason}" for reason in made.reasons]
    return lines


def write_foreseen(foreseen: Foreseen, *, as_json: bool) -> None:
    """Write what a training would do."""
    if as_json:
        write_json(foreseen.to_json())
        return
    for note in foreseen.notes:
        say(f"note: {note}")
    begins = f"version {foreseen.parent}" if foreseen.parent else "the bundle as it was built"
    lines = [
        f"{counted(foreseen.examples, 'examples')} would be taught, {foreseen.heldout} judge",
        f"from {begins}, {foreseen.n_trained} numbers ({foreseen.kind}) by {foreseen.method}",
        f"in {counted(foreseen.n_steps, 'steps')} at a learning rate of up to {foreseen.rate:g}",
    ]
    if foreseen.tokens is not None:
        lines.insert(1, f"{foreseen.tokens} tokens, {foreseen.learned_tokens} of them learned")
    if foreseen.past or foreseen.past_heldout:
        lines.append(
            f"{counted(foreseen.past, 'examples')} to be remembered, {foreseen.past_heldout} to "
            "judge what is forgotten"
        )
    if foreseen.added_classes:
        lines.append(f"new classes: {', '.join(foreseen.added_classes)}")
    if foreseen.is_resumed:
        lines.append("an earlier run was broken off: it would be resumed")
    write("\n".join(lines) + "\n")
