"""A process of its own that answers examples from a bundle: what a device would answer.

Called as `python -m onhand.device.networks.answer_child JOB`, a JSON file with `root`, `variant`,
`engine`, `threads`, `version` (0 for none), `home` and `batches`: `.npz` files of arrays in, called
"fed:name", (N, ...) each. The N examples are answered one by one, or, where a first size of the
network is fixed, as the single one that they are; beside each file comes `.out.npz` with the arrays
out, called "number:name", and a line on stdout when it is there.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import OnhandError
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.networks.opening import open_network

__all__ = ["FED", "main"]

FED: Final = "fed:"
"""Stands before the names of inputs, which may be any."""


def main(job: Path) -> int:
    """Answer; returns the process's exit code, and says on stderr what is wrong."""
    given = json.loads(job.read_text(encoding="utf-8"))
    try:
        version = given.get("version", 0)
        home = Path(given["home"]) if version else None
        bundle, _ = network_in_use(read_bundle(Path(given["root"])), home, version)
        loaded, engine, _ = open_network(
            bundle, variant=given["variant"], engine=given["engine"], threads=given["threads"]
        )
        _write(json.dumps({"engine": engine}))
        for name in given["batches"]:
            place = Path(name)
            with np.load(place, allow_pickle=False) as file:
                feeds = {key.removeprefix(FED): np.asarray(file[key]) for key in file.files}
            made: dict[str, Any] = {}
            for i, row in enumerate(_rows(feeds, bundle)):
                outputs = loaded.run(row)
                made |= {f"{i}:{key}": array for key, array in outputs.items()}
            np.savez(place.with_suffix(".out.npz"), **made)
            _write(json.dumps({"answered": place.name}))
        loaded.close()
    except OnhandError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _rows(feeds: dict[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    inputs = bundle.manifest.network.inputs
    if any(info.shape[:1] not in {(None,), (1,)} for info in inputs):
        return [feeds]
    n = len(next(iter(feeds.values())))
    return [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(n)]


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
