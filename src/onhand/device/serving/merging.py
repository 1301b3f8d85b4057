"""Several answers read at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Generic, Self, TypeVar

__all__ = ["Begun", "merged"]

_T = TypeVar("_T")


async def merged(streams: Sequence[AsyncIterator[_T]]) -> AsyncGenerator[tuple[int, _T]]:
    """Yield what several streams yield, as it comes; all are closed with the generator.

    Args:
        streams: asynchronous generators.

    Yields:
        The stream's number and what it gave.

    Raises:
        Exception: what a stream raised; the others are broken off then.
    """
    if len(streams) == 1:  # the usual case needs no task
        try:
            async for only in streams[0]:
                yield 0, only
        finally:
            await _close(streams[0])
        return
    news: asyncio.Queue[tuple[int, _T] | BaseException | None] = asyncio.Queue()
    tasks = [asyncio.create_task(_read(i, one, news)) for i, one in enumerate(streams)]
    try:
        n_open = len(tasks)
        while n_open:
            item = await news.get()
            if item is None:
                n_open -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Begun(Generic[_T]):
    """A stream that can be started before anybody waits for its first item. Close it."""

    def __init__(self, stream: AsyncGenerator[_T]) -> None:
        """Take a stream over; it is closed with this."""
        self._stream = stream
        self._first: asyncio.Future[_T] | None = None

    async def start(self) -> None:
        """Ask for the first item, and let it be worked on until it has to wait for something."""
        self._first = asyncio.ensure_future(anext(self._stream))
        # One turn for the stream, one for those that it has started.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """Return the next item."""
        first, self._first = self._first, None
        return await (anext(self._stream) if first is None else first)

    async def aclose(self) -> None:
        """Close the stream, wherever it is."""
        first, self._first = self._first, None
        if first is not None:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await self._stream.aclose()


async def _read(
    index: int,
    stream: AsyncIterator[_T],
    news: "asyncio.Queue[tuple[int, _T] | BaseException | None]",
) -> None:
    try:
        async for item in stream:
            news.put_nowait((index, item))
        news.put_nowait(None)
    except Exception as error:  # noqa: BLE001 (raised again by the reader)
        news.put_nowait(error)
    finally:
        await _close(stream)


async def _close(stream: AsyncIterator[_T]) -> None:
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
