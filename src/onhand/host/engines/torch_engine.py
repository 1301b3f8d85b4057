"""PyTorch as an engine, for graphics processors: CUDA, XPU and Apple's."""

import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.profile import DeviceProfile
from onhand.core.weights import open_weights
from onhand.device.adapting.fingerprints import seen_accelerators
from onhand.device.engines.base import Session
from onhand.device.engines.memory import (
    check_batch,
    check_context,
    check_open,
    narrowed_key,
    state_key,
)
from onhand.device.processor import processor
from onhand.host.engines.torch_decoder import Part, TorchDecoder
from onhand.host.engines.torch_session import TorchSession

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "TorchEngine", "TorchLoaded"]

DEVICES: Final = ("cuda", "xpu", "mps")
"""Those that it takes untold, the likeliest to be quick first; "cpu" only when asked for."""
PREFILL_TOKENS: Final = 1024
SCORE_ROWS: Final = 256


class TorchLoaded:
    """See `Loaded`. A step reads each matrix once for all of its rows."""

    def __init__(self, model: TorchDecoder, key: bytes, *, span_key: bytes) -> None:
        self.closed = False
        self.key = key
        self.span_key = span_key
        self._model: TorchDecoder | None = model
        self.decoder = model.decoder
        self.vocab_size = model.decoder.vocab_size
        self.context = model.decoder.context

    @property
    def model(self) -> TorchDecoder:
        """The weights.

        Raises:
            InputError: if they are closed.
        """
        if self._model is None:
            raise InputError("the model is closed; open the bundle again")
        return self._model

    def session(self, *, context: int | None = None) -> TorchSession:
        """See `Loaded`."""
        check_open(self.closed, "the model")
        return TorchSession(self, check_context(context, self.context))

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        import torch

        rows = self._checked(batch)
        last: list[tuple[TorchSession, TokenArray]] = []
        with torch.inference_mode(), _engine_errors():
            for session, tokens in rows:
                left = tokens
                # All but the last piece of a long prompt, so that memory for it is bounded.
                while left.size > PREFILL_TOKENS:
                    self._append([(session, left[:PREFILL_TOKENS])])
                    left = left[PREFILL_TOKENS:]
                last.append((session, left))
            hidden = self._append(last)  # (T, D)
            ends = torch.from_numpy(np.cumsum([tokens.size for _, tokens in last]) - 1)
            scores = self.model.logits(hidden[ends.to(hidden.device)])  # (B, V)
            return np.asarray(scores.cpu().numpy())

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        import torch

        rows = self._checked([(session, tokens)])
        found: list[FloatArray] = []
        with torch.inference_mode(), _engine_errors():
            for low in range(0, rows[0][1].size, SCORE_ROWS):
                hidden = self._append([(rows[0][0], rows[0][1][low : low + SCORE_ROWS])])
                found.append(self.model.logits(hidden).cpu().numpy())
        return np.concatenate(found)

    def close(self) -> None:
        """See `Loaded`."""
        self.closed = True
        self._model = None

    def _checked(
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> list[tuple[TorchSession, TokenArray]]:
        check_open(self.closed, "the model")
        return check_batch(batch, TorchSession, owner=self, vocab_size=self.vocab_size)

    def _append(self, rows: Sequence[tuple[TorchSession, TokenArray]]) -> "torch.Tensor":
        """Run tokens that fit, and remember them: the inputs of the head, (T, D)."""
        import torch

        tokens = torch.from_numpy(np.concatenate([row for _, row in rows])).to(self.model.device)
        parts = [
            Part(start=session.length, size=row.size, keys=session.keys, values=session.values)
            for session, row in rows
        ]
        hidden = self.model.hidden(tokens, parts)
        for session, row in rows:
            session.length += row.size
        return hidden


class TorchEngine:
    """See `WaysEngine`: "torch" takes the graphics processor that there is, "torch:cpu" none."""

    name: ClassVar[str] = "torch"

    def __init__(self, device: str = "", *, half: bool | None = None) -> None:
        """Choose where to compute.

        Args:
            device: one of `DEVICES`, or "cpu"; "" for the first that is there.
            half: whether products, keys and values are float16; None for all devices but "cpu".
        """
        self._device = device
        self._half = (device != "cpu") if half is None else half

    def ways(self, profile: DeviceProfile) -> tuple[str, ...]:
        """See `WaysEngine`: none, the best device is taken untold."""
        return ()

    def using(self, way: str) -> "TorchEngine":
        """See `WaysEngine`.

        Raises:
            InputError: if torch knows no such device.
        """
        if way not in {*DEVICES, "cpu"}:
            raise InputError(f"torch: there is no device {way!r}, but {', '.join(DEVICES)} and cpu")
        return TorchEngine(way)

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """Return None if there is torch and a graphics processor for it, else a reason."""
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed: pip install 'onhand[host]'"
        if self._device == "cpu":
            return None
        # Torch itself takes seconds to import: it is only asked where there is something.
        if reason := _why_nothing(self._device):
            return reason
        try:
            return None if _device_there(self._device) else _lacking(self._device)
        except ImportError as error:
            return f"torch cannot be imported: {error}"

    def open(
        self, bundle: Bundle, *, variant: str, threads: int, adapter: Adapter | None = None
    ) -> TorchLoaded:
        """Bring the codes to the device; torch chooses its own threads, `threads` is not used.

        Raises:
            EngineUnavailable: if torch or the device is missing.
            EngineError: if the weights do not fit the device.
            BundleCorrupt: if the weights do not match the manifest.
        """
        try:
            import torch
        except ImportError as error:
            raise EngineUnavailable(f"torch cannot be imported: {error}") from error
        there = "cpu" if self._device == "cpu" else _device_there(self._device)
        if there is None:
            raise EngineUnavailable(_lacking(self._device))
        dtype = torch.float16 if self._half else torch.float32
        weights = open_weights(bundle, variant)
        pairs = {} if adapter is None else adapter.pairs
        with _engine_errors():
            model = TorchDecoder(weights, pairs, torch.device(there), dtype)
        key = state_key(bundle, variant, self.name, adapter)
        if self._half:
            key = narrowed_key(key, "float16")
        span_key = narrowed_key(key, str(torch.__version__), there, *processor()[1])
        return TorchLoaded(model, key, span_key=span_key)


def _why_nothing(wanted: str) -> str | None:
    """Return why torch cannot find a device, as far as can be told without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return "torch is not installed"
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    if not apple and not _built_for_devices(Path(found.origin).with_name("version.py")):
        return _lacking(wanted, because=" (the installed torch was built for processors alone)")
    return None if seen_accelerators() else _lacking(wanted)


def _built_for_devices(version_file: Path) -> bool:
    try:
        text = version_file.read_text(encoding="utf-8")
    except OSError:
        return True  # laid out otherwise: it is imported and asked
    return re.search(r"^(cuda|hip|xpu)\b[^=\n]*= *['\"]", text, re.MULTILINE) is not None


def _device_there(wanted: str) -> str | None:
    import torch

    able: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": torch.xpu.is_available,
        "mps": torch.backends.mps.is_available,
    }
    return next((name for name in ([wanted] if wanted else DEVICES) if able[name]()), None)


def _lacking(wanted: str, *, because: str = "") -> str:
    what = f"no {wanted} device" if wanted else "no accelerator"
    return (
        f"there is {what} that torch can use{because}; torch:cpu is slow, and taken when asked for"
    )


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn torch's errors into ours; all of them are RuntimeErrors.

    Raises:
        EngineError: if the error came from torch.
    """
    try:
        yield
    except RuntimeError as error:
        raise EngineError(f"torch: {str(error).splitlines()[0]}") from error
