"""What a build of a network may be asked for."""

from pathlib import Path
from typing import Any

import pytest

from onhand.core.budget import parse_budget
from onhand.core.errors import InputError, SourceError
from onhand.host.networks.loading import load_network
from onhand.host.networks.options import NetworkOptions


def test_a_source_that_is_not_there_is_one_short_sentence(tmp_path: Path) -> None:
    """Not what every reader thinks of it."""
    with pytest.raises(SourceError, match=r"net.onnx: no such file or folder$"):
        load_network(str(tmp_path / "net.onnx"), task="features")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "dreams"}, "task is 'dreams'"),
        ({"variants": {}}, "needs at least one variant"),
        ({"heldout": Path("a")}, "give those as --data"),
        ({"data": Path("a"), "heldout": Path("b/../a")}, "must not be those of --data"),
        ({"n_calibration": 0}, "0 calibration examples"),
        ({"threads": 0}, "threads is 0"),
        ({"budget": parse_budget("decode=20")}, "'decode' is for language models; a network has"),
        ({"budget": parse_budget("loss=1%")}, "'loss' is judged on examples"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(options: dict[str, Any], message: str) -> None:
    """One sentence each."""
    with pytest.raises(InputError, match=message):
        NetworkOptions(**({"task": "features", "variants": {"fp32": ()}} | options))
