"""A sealed bundle answers in every engine as the plain one, and nothing plain is written."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.models import DECODER
from tests.network_bundles import classifier
from tests.network_bundles import pack as pack_network

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.sealed_header import public_of
from onhand.core.sealed_writing import seal_bundle
from onhand.core.unsealing import unsealing
from onhand.device.engines.base import Engine
from onhand.device.networks.base import NetworkEngine
from onhand.device.networks.timing import random_feeds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's anonymous files")
KEY = b"k" * 32


class Device:
    """Has one key."""

    def private_keys(self) -> tuple[bytes, ...]:
        """See `Unsealer`."""
        return (KEY,)


@pytest.fixture(autouse=True)
def _here() -> Iterator[None]:
    with unsealing(Device()):
        yield


def sealed_of(bundle: Bundle, out: Path) -> Bundle:
    """A bundle, sealed for this device and read again; only sealed files are left in it."""
    seal_bundle(bundle.root, out, [public_of(KEY)])
    for name in bundle.manifest.files:
        assert bundle.path(name).read_bytes()[:64] not in (out / name).read_bytes()
    return read_bundle(out)


def test_a_sealed_decoder_answers_as_the_plain_one(
    engine: Engine, pack: "object", tmp_path: Path
) -> None:
    """To the bit; the folder holds no file more."""
    assert callable(pack)
    plain: Bundle = pack(DECODER)
    sealed = sealed_of(plain, tmp_path / "sealed")
    before = sorted(sealed.root.rglob("*"))
    tokens = np.arange(1, 7, dtype=np.int64)

    found = []
    for bundle in (plain, sealed):
        loaded = engine.open(bundle, variant=bundle.manifest.default_variant, threads=1)
        session = loaded.session()
        found.append(np.asarray(loaded.step([(session, tokens)])[0]))
        session.close()
        loaded.close()

    np.testing.assert_array_equal(found[1], found[0])
    assert sorted(sealed.root.rglob("*")) == before


def test_a_sealed_network_answers_as_the_plain_one(
    network_engine: NetworkEngine, tmp_path: Path
) -> None:
    """Likewise, weights beside the graph included."""
    plain = pack_network(tmp_path / "plain", {"fp32": classifier(np.random.default_rng(0))})
    sealed = sealed_of(plain, tmp_path / "sealed")
    feeds = random_feeds(plain.manifest.network)

    found = [
        network_engine.open(bundle, variant=None, threads=1).run(feeds)
        for bundle in (plain, sealed)
    ]

    for name, array in found[0].items():
        np.testing.assert_array_equal(found[1][name], array)
