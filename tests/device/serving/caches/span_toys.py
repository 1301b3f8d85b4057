"""Models whose sessions can be saved in parts: what they remember is the tokens themselves."""

import hashlib
import json

from tests.device.test_generate import FakeLoaded
from tests.device.toy_model import ToySession

from onhand.core.errors import ContextOverflow, InputError

__all__ = ["SpanLoaded", "SpanToy"]


class SpanToy(ToySession):
    """See `SpanSession`."""

    def __init__(self, context: int, model: str = "toy") -> None:
        super().__init__(context)
        self.span_key = hashlib.sha256(model.encode()).digest()
        self.model = model

    def fork(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self,
    ) -> "SpanToy":
        """See `SpanSession`."""
        forked = SpanToy(self.context, self.model)
        forked.tokens = list(self.tokens)
        return forked

    def save_span(self, begin: int, end: int) -> bytes:
        """See `SpanSession`."""
        assert 0 <= begin <= end <= self.length
        return json.dumps([self.model, begin, self.tokens[begin:end]]).encode()

    def load_span(self, span: bytes | memoryview) -> None:
        """See `SpanSession`."""
        model, begin, tokens = json.loads(bytes(span))
        if model != self.model or begin != self.length:
            raise InputError("of another model or place")
        if begin + len(tokens) > self.context:
            raise ContextOverflow("does not fit")
        self.tokens += tokens


class SpanLoaded(FakeLoaded):
    """A fake model with such sessions."""

    model = "toy"

    def session(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, *, context: int | None = None
    ) -> SpanToy:
        """See `Loaded`."""
        self.session_made = made = SpanToy(context or self.context, self.model)
        return made
