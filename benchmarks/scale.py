"""A sweep on a Ray cluster of several nodes, one of them killed in the middle, and on one machine.

    python -m benchmarks.scale --nodes 3 --model DIR --json

Each node is a process group of this machine that Ray takes for a node of its own. Both ways must
give the same manifests; the figures are how long each took and what the loss of a node cost.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onhand.core.progress import Progress, Quiet
from onhand.host.scale.cluster import RayExecutor
from onhand.host.scale.executor import Executor, LocalExecutor
from onhand.host.scale.running import run_sweep
from onhand.host.scale.sweep import Sweep
from onhand.host.scale.trial import Trial

RESULTS = Path(__file__).parent / "results" / "scale.json"
HOUSE = Path(__file__).parents[1] / "examples" / "house_assistant" / "model"
# Of loopback; Ray takes 127.0.0.1 for the machine's name in its network.
NODE = {"object_store_memory": 2 * 10**8, "node_ip_address": "127.0.0.2"}
QUICK = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}


def sweep_of(model: Path, bits: list[int], groups: list[int]) -> Sweep:
    """Every width with every group, and one budget that nothing holds."""
    common = ("--method", "rtn", "--threads", "1", "--no-original")
    trials = [
        Trial(
            name=f"bits{b}-group{g}",
            source=model.name,
            device="",
            budget="",
            words=(str(model), "--bits", str(b), "--group", str(g), *common),
        )
        for b in bits
        for g in groups
    ]
    impossible = replace(trials[0], name="impossible", budget="disk=1kB")
    words = (*impossible.words, "--budget", "disk=1kB")
    return Sweep(name="scale", trials=(*trials, replace(impossible, words=words)), is_timed=False)


class Killer:
    """Kills a node of the cluster when some trials are done and another one runs on it."""

    def __init__(self, cluster: Any, after: int) -> None:
        self.cluster = cluster
        self.after = after
        self.done = 0
        self.killed_s = 0.0

    def start(self, what: str, total: float) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""

    def advance(self, amount: float) -> None:
        """Count, and kill a while later, in the middle of the next trials."""
        self.done += 1
        if self.done == self.after:
            threading.Timer(2.0, self._kill).start()

    def _kill(self) -> None:
        victim = self.cluster.worker_nodes.copy().pop()
        self.killed_s = time.monotonic()
        self.cluster.remove_node(victim, allow_graceful=False)


def manifests(table: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Trial -> outcome and manifest."""
    rows = table["trials"]
    if not isinstance(rows, list):
        raise TypeError("the table has no trials")
    return {row["name"]: (row["outcome"], row["manifest_sha256"]) for row in rows}


def timed(
    sweep: Sweep, folder: Path, executor: Executor, progress: Progress
) -> tuple[float, Mapping[str, object]]:
    """Run a sweep, and say how long it took."""
    begun = time.monotonic()
    table = run_sweep(sweep, folder, executor, home=folder / "home", progress=progress)
    return time.monotonic() - begun, table


def on_cluster(sweep: Sweep, folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """Run the sweep on a cluster whose last node is killed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK, **NODE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(given.nodes):
            cluster.add_node(num_cpus=1, **NODE)
        killer = Killer(cluster, given.kill_after)
        executor = RayExecutor(cluster.address, at_once=given.at_once)
        seconds, table = timed(sweep, folder, executor, killer)
    finally:
        cluster.shutdown()
    return {"seconds": seconds, "killed": killer.killed_s > 0, "table": table}


def main(arguments: list[str] | None = None) -> int:
    """Compare both ways."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.scale")
    parser.add_argument("--model", type=Path, default=HOUSE, help="a model that can be built")
    parser.add_argument("--calibrate", type=Path, help="a text; without it, the model's own")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=1, help="trials on this machine at once")
    parser.add_argument("--kill-after", type=int, default=1, help="trials done before a node dies")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--groups", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    sweep = sweep_of(given.model.absolute(), given.bits, given.groups)
    if given.calibrate is not None:
        words = ("--calibrate", str(given.calibrate.absolute()))
        made = tuple(replace(trial, words=(*trial.words, *words)) for trial in sweep.trials)
        sweep = replace(sweep, trials=made)
    with tempfile.TemporaryDirectory() as folder:
        local_s, local = timed(sweep, Path(folder, "local"), LocalExecutor(), Quiet())
        cluster = on_cluster(sweep, Path(folder, "cluster"), given)
    table = cluster["table"]
    if not isinstance(table, dict):
        raise TypeError("no table")
    here, there = manifests(local), manifests(table)
    rows = local["trials"]
    each = [row["seconds"] for row in rows] if isinstance(rows, list) else []
    results = {
        "model": "house-assistant" if given.model == HOUSE else given.model.name,
        "nodes": given.nodes,
        "at_once": given.at_once,
        "trials": len(sweep.trials),
        "outcomes": {name: outcome for name, (outcome, _) in here.items()},
        "same_manifests": here == there,
        "node_killed": cluster["killed"],
        "local_s": local_s,
        "cluster_s": cluster["seconds"],
        "trial_median_s": statistics.median(each),
    }
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(results, indent=1, sort_keys=True))
    else:
        for name, value in results.items():
            print(f"{name:16} {value}")
    return 0 if here == there else 1


if __name__ == "__main__":
    sys.exit(main())
