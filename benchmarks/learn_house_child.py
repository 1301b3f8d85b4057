"""Learns from a file, as a device would, and says what it took. See `benchmarks.learn_house`.

python -m benchmarks.learn_house_child BUNDLE DATA HOME SETTINGS AT_ONCE

SETTINGS is a JSON object of `LearnSettings`; AT_ONCE processes share the processor.
"""

import json
import sys
import time
from pathlib import Path

from onhand.device.learning.learn import learn
from onhand.device.learning.settings import LearnSettings
from onhand.device.threads import usable_threads

__all__ = ["main"]


def main() -> None:
    """Learn, and print one JSON object."""
    bundle, data, home, settings, at_once = sys.argv[1:]
    started = time.perf_counter()
    made = learn(
        bundle,
        data,
        settings=LearnSettings(heldout=0.0, **json.loads(settings)),
        home=Path(home),
        threads=max(1, usable_threads() // int(at_once)),
    )
    duration_s = time.perf_counter() - started
    found = {
        "duration_s": made.seconds if made.resumed_at else duration_s,
        "energy_estimated": made.energy_estimated,
        "energy_j": made.energy_j,
        "is_used": made.is_used,
        "peak_memory_bytes": _peak_bytes(),
        "reasons": list(made.reasons),
        "resumed_at": made.resumed_at,
        "steps": made.steps,
        "steps_s": made.seconds,
        "version": made.version,
        "torch_imported": "torch" in sys.modules,
    }
    print(json.dumps(found))


def _peak_bytes() -> int:
    """Return the highest resident memory of this process."""
    import resource

    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes if sys.platform == "darwin" else kibibytes * 1024


if __name__ == "__main__":
    main()
