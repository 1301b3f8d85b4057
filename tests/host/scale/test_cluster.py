"""Pieces of work on a Ray cluster of several nodes on this machine; skipped where Ray is not."""

import importlib.util
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.host.scale.pieces import break_down, die, die_once, double, refuse, wait_for

from onhand.core.errors import EngineError, InputError, ResourceError
from onhand.host.scale.cluster import RayExecutor, RayWords, task_needs
from onhand.host.scale.executor import LocalExecutor, Lost

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

# Of loopback; Ray takes 127.0.0.1 for the machine's name in its network.
SMALL = {"object_store_memory": 10**8, "node_ip_address": "127.0.0.2"}
with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is an extra of its own: onhand[ray]"
)


def node(cpus: float, *, alive: bool = True, **more: float) -> dict[str, Any]:
    """A node as Ray lists it."""
    return {"Alive": alive, "Resources": {"CPU": cpus, **more}}


@pytest.mark.parametrize(
    ("nodes", "at_once", "needs"),
    [
        ([node(4), node(8)], 1, {"num_cpus": 4}),
        ([node(4), node(8)], 2, {"num_cpus": 2}),
        ([node(1)], 2, {"num_cpus": 0.5}),
        ([node(0), node(4), node(2, alive=False)], 1, {"num_cpus": 4}),
        ([node(4), node(8, onhand=1)], 1, {"num_cpus": 0, "resources": {"onhand": 1.0}}),
        ([node(4), node(8, onhand=1)], 4, {"num_cpus": 0, "resources": {"onhand": 0.25}}),
    ],
)
def test_a_piece_takes_so_much_that_no_more_run_than_may(
    nodes: list[dict[str, Any]], at_once: int, needs: dict[str, object]
) -> None:
    """The cluster's own resource decides where there is one, else its processors."""
    assert task_needs(nodes, at_once) == needs


def test_a_cluster_without_processors_is_told() -> None:
    """Nothing would ever begin."""
    with pytest.raises(ResourceError, match="no node with processors"):
        task_needs([node(0)], 1)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(InputError, match=r"pip install \"onhand\[ray\]\""):
        RayExecutor("auto").map(double, [1])


def test_of_what_ray_prints_retries_are_told() -> None:
    """Its dumps are not: the standard output is for results."""
    told: list[str] = []
    printed = (
        "\x1b[33m(raylet)\x1b[0m Task in_slot failed. There are 2 retries remaining, so the task "
        "will be retried. Error: Task failed because the node it was on is dead. Node IP: x\n"
        "    [state-dump] 1 total\n"
    )

    assert RayWords(told.append).write(printed) == len(printed)
    assert RayWords(None).write(printed) == len(printed)
    assert told == [
        "a worker died, its trial begins anew: Task failed because the node it was on is dead"
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator["Cluster"]:
    """A head that does no work, and two nodes that do."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick, **SMALL}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, **SMALL)
            yield made
        finally:
            made.shutdown()


@with_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestOnACluster:
    """On two nodes; the last test kills one."""

    def test_results_are_those_of_one_machine(self, cluster: "Cluster") -> None:
        """In the order of the items."""
        items = [3, 1, 2]

        assert RayExecutor(cluster.address).map(double, items) == LocalExecutor().map(double, items)

    def test_errors_of_the_work_are_what_they_are(self, cluster: "Cluster") -> None:
        """A caller's error keeps its class; a mistake of ours says where it came from."""
        with pytest.raises(InputError, match="7 is refused"):
            RayExecutor(cluster.address).map(refuse, [7])
        with pytest.raises(EngineError, match="on a worker of the cluster: 7 broke it"):
            RayExecutor(cluster.address).map(break_down, [7])

    def test_a_piece_whose_worker_dies_is_begun_anew(
        self, cluster: "Cluster", tmp_path: Path
    ) -> None:
        """Once is no loss, each time is."""
        executor = RayExecutor(cluster.address, retries=1)

        assert executor.map(die_once, [str(tmp_path / "mark")]) == [4]
        lost = executor.map(die, ["x"])[0]
        assert isinstance(lost, Lost)
        assert lost.why.startswith("its worker died 2 times: ")

    def test_a_node_that_is_killed_loses_nothing(self, cluster: "Cluster", tmp_path: Path) -> None:
        """What ran on it is begun anew on the other, and all results are there."""
        items = [str(tmp_path / name) for name in ("a", "b", "c")]
        told: list[str] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            executor = RayExecutor(cluster.address, tell=told.append)
            results = pool.submit(executor.map, wait_for, items)
            _, name, victim = until_begun(tmp_path, "*", 1)[0].name.split("-")
            guilty = next(one for one in cluster.worker_nodes if one.node_id == victim)

            cluster.remove_node(guilty, allow_graceful=False)
            # All are on one machine, which has one place: the next begins when the first is gone.
            until_begun(tmp_path, "*", 2)
            (tmp_path / "go").touch()

            assert results.result(timeout=120) == ["a", "b", "c"]
        nodes = {path.name.split("-")[2] for path in until_begun(tmp_path, name, 2)}
        assert victim in nodes
        assert len(nodes) == 2
        assert told[0].startswith("a worker died, its trial begins anew: ")


def until_begun(folder: Path, name: str, times: int) -> list[Path]:
    """The marks of pieces that began, once there are so many."""
    end = time.monotonic() + 60
    while len(found := list(folder.glob(f"begun-{name}-*"))) < times and time.monotonic() < end:
        time.sleep(0.02)
    return found


@with_ray
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "[::1]:9", "nonsense"])
def test_a_cluster_that_is_not_there_is_told(address: str) -> None:
    """One sentence, at once, not after minutes."""
    with pytest.raises(ResourceError, match=r"--ray .*: no cluster can be reached: "):
        RayExecutor(address).map(double, [1])
