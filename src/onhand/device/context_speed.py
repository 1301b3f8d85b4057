"""Speed at one length of the context, as trials measure it and reports keep it."""

from dataclasses import dataclass

from onhand.core.measurement import Measurement

__all__ = ["ContextSpeed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSpeed:
    """Speed at one length of the context.

    Attributes:
        tokens: of the prompt.
        time_to_first_token_s: of reading it all.
        decode_tokens_per_s: of the tokens behind it.
    """

    tokens: int
    time_to_first_token_s: Measurement
    decode_tokens_per_s: Measurement

    def to_json(self) -> dict[str, object]:
        """Return a JSON object with every attribute."""
        return {
            "tokens": self.tokens,
            "time_to_first_token_s": self.time_to_first_token_s.to_json(),
            "decode_tokens_per_s": self.decode_tokens_per_s.to_json(),
        }
