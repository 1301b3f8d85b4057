"""Scores of tokens in the older form of `/v1/completions`: lists side by side."""

import codecs
from collections.abc import Sequence

from onhand.device.serving.asks import Score

__all__ = ["OldScores"]


class OldScores:
    """Puts the scores of one choice into that form, piece after piece.

    Tokens may end within a character, so places in the text are counted as it is decoded.
    """

    def __init__(self) -> None:
        """Start at the beginning of the text."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def told(self, scores: Sequence[Score]) -> dict[str, object]:
        """Return the next tokens' scores.

        Args:
            scores: of tokens that follow those told before.

        Returns:
            Lists of the same length; `top_logprobs` is null where none were asked for.
        """
        offsets: list[int] = []
        for score in scores:
            offsets.append(self._offset)
            self._offset += len(self._utf8.decode(score.token))
        others = [{_text(other): other.logprob for other in score.others} for score in scores]
        return {
            "tokens": [_text(score) for score in scores],
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": others if any(others) else None,
            "text_offset": offsets,
        }


def _text(score: Score) -> str:
    return score.token.decode(errors="replace")
