"""The decoder's graph on an execution provider. Not run on a GPU: the processor stands in for one.

What is tried so is all but the accelerator itself: where keys and values lie, what is bound, what
a provider leaves to the processor, and what is said when it cannot be had.
"""

from dataclasses import replace

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.models import VOCAB, varied_decoder

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.profile_parts import Provider
from onhand.device.engines.named import named_engine
from onhand.device.engines.onnx import OnnxEngine, OnnxLoaded
from onhand.device.engines.onnx_memory import DeviceMemory, HostMemory
from onhand.device.hardware import execution_providers
from onhand.device.hardware.execution_providers import ExecutionProvider, usable_providers
from onhand.device.probe import current_profile

ROW = np.random.default_rng(3).integers(0, VOCAB, 24)


@pytest.fixture
def bundle(pack: Pack) -> Bundle:
    """Layers that differ: parts of a memory have shapes of their own."""
    return pack(varied_decoder())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider whose memory is ONNX Runtime's own, on the processor, instead of CUDA."""
    stand_in = ExecutionProvider(name="CPUExecutionProvider", memory="cpu")
    monkeypatch.setitem(execution_providers.EXECUTION_PROVIDERS, "cuda", stand_in)
    # The processor leaves nothing to itself.
    monkeypatch.setattr("onhand.device.engines.onnx.left_to_processor", lambda _: {})


def opened(bundle: Bundle, name: str = "onnx:cuda") -> OnnxLoaded:
    """The bundle in ONNX Runtime."""
    loaded = named_engine(name).open(bundle, variant="small", threads=1)
    assert isinstance(loaded, OnnxLoaded)
    return loaded


@pytest.mark.usefixtures("fake")
def test_keys_and_values_stay_on_the_device(bundle: Bundle) -> None:
    """Every step reads and writes them there: the same answers, and the same memory as bytes."""
    there, here = opened(bundle), opened(bundle, "onnx")
    session, other = there.session(), here.session()
    assert isinstance(session.memory, DeviceMemory)
    assert isinstance(other.memory, HostMemory)
    before = session.memory.places()

    for part in np.split(ROW, [10, 11]):
        found, expected = (
            loaded.step([(one, part)]) for loaded, one in ((there, session), (here, other))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    assert session.memory.places() == before
    fork = session.fork()
    fresh = there.session()
    fresh.load_span(session.save_span(0, 7))
    fresh.load_span(session.save_span(7, 24))
    assert fork.save_state() == session.save_state() == fresh.save_state()
    assert session.save_state()[42:] == other.save_state()[42:]
    with pytest.raises(InputError, match="another bundle, variant, engine"):
        other.load_state(session.save_state())
    session.rewind(3)
    fork.rewind(3)
    np.testing.assert_array_equal(there.step([(session, ROW[:4])]), there.step([(fork, ROW[:4])]))
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.save_state()


def test_where_attention_is_left_to_the_processor_its_memory_is_there(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every step would fetch all of it."""
    stand_in = ExecutionProvider(name="CPUExecutionProvider", memory="cpu")
    monkeypatch.setitem(execution_providers.EXECUTION_PROVIDERS, "cuda", stand_in)

    loaded = opened(bundle)

    assert loaded.left_to_processor is not None
    assert loaded.left_to_processor["GroupQueryAttention"] == len(loaded.decoder.layers)
    assert isinstance(loaded.session().memory, HostMemory)


def test_what_the_package_has_not_is_said(bundle: Bundle) -> None:
    """And what a name may be."""
    with pytest.raises(EngineUnavailable, match="built without CUDAExecutionProvider"):
        opened(bundle)
    with pytest.raises(InputError, match="no execution provider 'cude'; known are cuda, "):
        named_engine("onnx:cude")


@pytest.mark.usefixtures("fake")
def test_a_provider_that_breaks_does_so_when_it_is_opened(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token is tried: never is an answer broken off for it."""

    def breaks(*_: object, **__: object) -> None:
        raise EngineError("onnxruntime: CUDA failure 2: out of memory")

    monkeypatch.setattr(OnnxLoaded, "step", breaks)

    with pytest.raises(EngineError, match=r"onnx:cuda opens the model and cannot run it: .*memory"):
        opened(bundle)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), ()),
        ((("CUDAExecutionProvider", "onnxruntime"),), ("cuda",)),
        ((("OpenVINOExecutionProvider", "onnxruntime"), ("GPU.0", "openvino")), ("openvino-gpu",)),
        ((("OpenVINOExecutionProvider", "onnxruntime"),), ()),
        ((("QNNExecutionProvider", "onnxruntime-qnn"), ("NPU", "openvino")), ("qnn",)),
    ],
)
def test_the_profile_says_which_are_usable(
    names: tuple[tuple[str, str], ...], found: tuple[str, ...]
) -> None:
    """Present and computing rightly, when they were tried."""
    providers = [Provider(name=name, package=one, is_usable=True) for name, one in names]
    profile = replace(current_profile(), providers=tuple(providers))
    broken = replace(profile, providers=tuple(replace(one, is_usable=False) for one in providers))

    assert usable_providers(profile) == OnnxEngine().ways(profile) == found
    assert usable_providers(broken) == ()
