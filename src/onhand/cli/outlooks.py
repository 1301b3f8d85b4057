"""What would run a bundle on a device, as `onhand inspect --here` and `--device` show it."""

from dataclasses import asdict
from pathlib import Path

from onhand.cli.output import say, write_json, write_table
from onhand.core.bundle import Bundle
from onhand.device.adapting.outlook import Outlook, look_ahead, look_here

__all__ = ["show_outlooks"]


def show_outlooks(bundle: Bundle, *, device: str | None, home: Path, as_json: bool) -> None:
    """Show it for every variant of a bundle.

    Args:
        bundle: the bundle.
        device: another device, by name or profile; None for this one.
        home: the state folder.
        as_json: whether a program reads it.
    """
    found = {name: _outlook(bundle, name, device, home) for name in bundle.manifest.variants}
    if as_json:
        write_json({name: asdict(one) for name, one in found.items()})
        return
    for one in found.values():
        where = f"{one.device}, foretold" if one.is_predicted else f"{one.device}, this device"
        write_table(
            [f"{one.variant} on {where}", "computes with", "precision", "threads", "why"],
            [
                (
                    f"{'* ' * way.is_chosen}{way.engine}",
                    way.kernels,
                    way.precision,
                    str(way.threads or "its own"),
                    way.why,
                )
                for way in one.ways
            ],
        )
        for note in one.notes:
            say(f"note: {note}")


def _outlook(bundle: Bundle, variant: str, device: str | None, home: Path) -> Outlook:
    if device is not None:
        from onhand.device.known_devices import read_device

        return look_ahead(bundle, variant, read_device(device))
    from onhand.device.probe import current_profile

    return look_here(bundle, variant, current_profile(), home=home)
