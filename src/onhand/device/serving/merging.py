"""Several answers read at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

__all__ = ["merged"]

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
