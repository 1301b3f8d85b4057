"""Sessions whose memory can be saved and loaded in parts."""

from typing import Protocol, runtime_checkable

from onhand.device.engines.base import Session

__all__ = ["SpanSession"]


@runtime_checkable
class SpanSession(Session, Protocol):
    """A `Session` whose memory can be saved and loaded in parts.

    Engines may offer it. What is kept so between processes is worth as much as what a step
    computes: the same bits.
    """

    @property
    def span_key(self) -> bytes:
        """32 bytes that name all that the bits of a memory depend on, beside the tokens.

        The bundle, variant and adapter, the engine and its version, and how it computes here.
        """
        ...

    def fork(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self,
    ) -> "SpanSession":
        """See `Session`."""
        ...

    def save_span(self, begin: int, end: int) -> bytes:
        """Return the memory of the tokens from `begin` to before `end` as bytes.

        Raises:
            InputError: if the session does not remember them.
        """
        ...

    def load_span(self, span: bytes | memoryview) -> None:
        """Remember the tokens of a saved span behind those that are remembered.

        Raises:
            InputError: if the bytes are damaged, have another `span_key`, or do not begin where
                the session ends.
            ContextOverflow: if they go beyond the context.
        """
        ...
