"""Bundles of tiny models, packed once for a run of the tests, and opened in every engine."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from tests.models import DECODER, memory_model

from onhand import native
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.plugins import NETWORK_ENGINES, plugin_names
from onhand.core.progress import Quiet
from onhand.device.engines.base import Engine, Loaded
from onhand.device.engines.named import named_engine
from onhand.device.networks.base import NetworkEngine
from onhand.device.networks.opening import named_engine as named_network_engine

pytest.importorskip("onnx", reason="makes bundles: needs onhand[host]")

from onhand.host.calibrate import InputStatistics
from onhand.host.pack import pack_bundle, pack_original, plan_variants
from onhand.host.passes.quantize import Quantize

# One word more puts an engine of a third party through the same suite. The native one goes through
# it with every instruction set that the processor has; `native` alone is the first of them.
SETS: list[str] = [] if native.module is None else native.module.instruction_sets()
NAMES = ["reference", "onnx", "torch:cpu", "native", *(f"native:{name}" for name in SETS[1:])]
Pack = Callable[..., Bundle]


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A function that gives the bundle of a random model; None keeps it in float32."""
    made: dict[object, Bundle] = {}

    def build(
        decoder: Decoder = DECODER,
        transform: Quantize | None = Quantize(method="rtn"),  # noqa: B008 - it is frozen
        *,
        accuracy_level: int = 0,
        seed: int = 0,
    ) -> Bundle:
        key = (decoder, transform, accuracy_level, seed)
        if key not in made:
            folder = tmp_path_factory.mktemp("bundle")
            made[key] = _packed(folder, decoder, transform, accuracy_level, seed)
        return made[key]

    return build


def _packed(
    folder: Path, decoder: Decoder, transform: Quantize | None, accuracy_level: int, seed: int
) -> Bundle:
    model = memory_model(decoder, seed=seed)
    if transform is None:
        return pack_original(model, folder)
    return pack_bundle(
        model,
        plan_variants(decoder, {"small": transform, "int8": Quantize(bits=8, method="rtn")}),
        InputStatistics(),
        folder,
        accuracy_level=accuracy_level,
        provenance={"source_sha256": model.sha256},
        threads=1,
        progress=Quiet(),
    ).bundle


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    return named_engine(request.param)


@pytest.fixture
def loaded(engine: Engine, pack: Pack) -> Loaded:
    """The plain tiny model, int4, multiplied in float32."""
    return engine.open(pack(), variant="small", threads=1)


@pytest.fixture(params=plugin_names(NETWORK_ENGINES))
def network_engine(request: pytest.FixtureRequest) -> NetworkEngine:
    """Each engine for networks in turn, a third party's among them."""
    found = named_network_engine(request.param)
    try:
        version(found.package)
    except PackageNotFoundError:
        pytest.skip(f"{found.package} is not installed")
    return found
