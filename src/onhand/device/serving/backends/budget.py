"""How many second attempts there may be, so that a failure does not double the load."""

__all__ = ["RetryBudget"]


class RetryBudget:
    """A bucket that each request fills a little, and each second attempt takes one from."""

    def __init__(self, *, share: float, reserve: int) -> None:
        """Begin with a full bucket.

        Args:
            share: second attempts per request, over time.
            reserve: most that are saved up.
        """
        self._share = share
        self._most = float(reserve)
        self._left = float(reserve)

    def earn(self) -> None:
        """Note a request."""
        self._left = min(self._left + self._share, self._most)

    def spend(self) -> bool:
        """Take a second attempt; say whether there was one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
