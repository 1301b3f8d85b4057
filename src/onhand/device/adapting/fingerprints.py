"""The names that choices are remembered by: they change with all that may change the choice."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from onhand import __version__
from onhand.core.profile import DeviceProfile
from onhand.device.hardware.known_providers import seen_vendors

__all__ = ["COMPUTING_PACKAGES", "HERE", "fingerprint", "package_versions", "seen_accelerators"]

HERE: Final = Path("/")
COMPUTING_PACKAGES: Final = (
    "numpy",
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-ep-webgpu",
    "onnxruntime-gpu",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-webgpu",
    "openvino",
    "torch",
    "triton",
)
"""Distributions that may compute: another version, or one more, may be faster or slower."""
_NODES: Final = ("dev/nvidiactl", "dev/dxg", "dev/kfd")  # of drivers, also inside containers


def package_versions(names: Iterable[str] = COMPUTING_PACKAGES) -> dict[str, str]:
    """Return the installed version of each package; those that are not installed are left out.

    Args:
        names: of distributions.
    """
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def seen_accelerators(root: Path = HERE, *, system: str = sys.platform) -> tuple[str, ...]:
    """Return what may compute beside the processor, as far as the system shows it at a glance.

    Nothing is imported and no driver is called: this is asked at every opening.

    Args:
        root: folder that holds `sys` and `dev`.
        system: as `sys.platform`; Apple's and Windows' machines have something that may.

    Returns:
        Names, sorted; empty where there is none.
    """
    found = {f"{kind} {vendor}" for kind, vendor in seen_vendors(root)}
    found |= {f"/{node}" for node in _NODES if (root / node).exists()}
    found |= {system} & {"darwin", "win32"}
    return tuple(sorted(found))


def fingerprint(
    kind: str,
    facts: Mapping[str, object],
    profile: DeviceProfile,
    *,
    threads: int,
    root: Path = HERE,
) -> str:
    """Return the name that a choice is remembered by.

    Args:
        kind: of the choice, in lower-case letters and -.
        facts: what it was between, as JSON can hold it: variant, ways to compute.
        profile: whose processor, and whose list of providers, count.
        threads: most that a step may use.
        root: as in `seen_accelerators`.

    Returns:
        A name for `onhand.device.state`.
    """
    whole = {
        **facts,
        "accelerators": seen_accelerators(root),
        "onhand": __version__,
        "packages": package_versions(),
        "processor": [profile.processor, profile.machine, *profile.instruction_sets],
        "providers": [[one.package, one.name, one.is_usable] for one in profile.providers],
        "threads": threads,
    }
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
    return f"{kind}-{digest}"
