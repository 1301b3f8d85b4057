"""A conversation goes on in the next process: the prompt is not computed again."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path

import httpx2
import pytest
from tests.device.serving.caches.span_toys import SpanLoaded
from tests.device.serving.served import Served, client_of, fake_model, serving
from tests.device.test_generate import mixing

from onhand.core.arrays import FloatArray, TokenArray
from onhand.device.engines.base import Session
from onhand.device.serving.asks import Ask, Ending
from onhand.device.serving.caches.block_figures import open_blocks
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.settings import CacheSettings, ServeSettings
from onhand.device.serving.state import ServerState
from onhand.device.text import Tokenizer

PROMPT = "The lamp in the kitchen is on, and so is the one in the hall. " * 2  # 124 letters
ASKED = {"model": "toy", "prompt": PROMPT, "max_tokens": 9, "temperature": 0}


def store_of(home: Path) -> BlockStore:
    found = open_blocks(CacheSettings(blocks_bytes=2**20), home)
    assert found is not None
    return found


@contextmanager
def process(home: Path, loaded: SpanLoaded) -> Iterator[tuple[Served, BlockStore]]:
    """A server with a state folder, as one process has it."""
    blocks = store_of(home)
    (folder := home / f"bundle-{id(loaded)}").mkdir(parents=True)
    state = ServerState([fake_model(folder, loaded=loaded, blocks=blocks)], blocks=blocks)
    with serving(state=state, settings=ServeSettings()) as served:
        yield served, blocks


def cached(usage: object) -> int:
    """`cached_tokens` of what the official client returned."""
    details = getattr(usage, "prompt_tokens_details")  # noqa: B009 (of several types)
    return int(details.cached_tokens)


def test_the_next_process_goes_on(tmp_path: Path) -> None:
    """The same answer to the byte; all but the prompt's last token is found, and counted."""
    with process(tmp_path, first := SpanLoaded(mixing)) as (served, blocks):
        with client_of(served) as client:
            before = client.completions.create(**ASKED)  # type: ignore[call-overload]
        blocks.flush()
    with process(tmp_path, second := SpanLoaded(mixing)) as (served, _):
        with client_of(served) as client:
            after = client.completions.create(**ASKED)  # type: ignore[call-overload]
        figures = httpx2.get(f"{served.url}/metrics").text

    assert after.choices[0].text == before.choices[0].text
    assert (cached(before.usage), cached(after.usage)) == (0, len(PROMPT) - 1)
    assert sum(first.fed) == len(PROMPT) + 8
    assert sum(second.fed) == 9
    assert "onhand_blocks_hits 1.0" in figures
    assert f"onhand_blocks_restored_tokens {len(PROMPT) - 1}.0" in figures
    assert "onhand_blocks_damaged 0.0" in figures


def test_the_words_of_the_last_conversations_are_known_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer takes longest when it sees a word first: so before anybody asks."""
    with process(tmp_path, SpanLoaded(mixing)) as (served, blocks):
        httpx2.post(f"{served.url}/v1/completions", json=ASKED)
        blocks.flush()
    again = open_blocks(CacheSettings(blocks_bytes=2**20, warm_bytes=2**20), tmp_path)
    (folder := tmp_path / "again").mkdir()
    model = fake_model(folder, loaded=SpanLoaded(mixing), blocks=again)
    seen: list[str] = []
    encode = Tokenizer.encode_template

    def encoding(tokenizer: Tokenizer, text: str) -> TokenArray:
        seen.append(text)
        return encode(tokenizer, text)

    monkeypatch.setattr(Tokenizer, "encode_template", encoding)

    model.warm_up()

    assert any(text.startswith(PROMPT[:60]) for text in seen)
    model.close()
    assert again is not None
    again.close()


def test_the_last_conversation_is_remembered_before_anybody_asks(tmp_path: Path) -> None:
    """By its tenant alone, whom nothing on the disk names; nothing is read when it goes on."""
    blocks = store_of(tmp_path)
    model = fake_model(named(tmp_path, "1"), loaded=SpanLoaded(mixing), blocks=blocks)
    told(model.answer(ask("a")))
    model.close()
    blocks.close()
    again = open_blocks(CacheSettings(blocks_bytes=2**20, warm_bytes=2**20), tmp_path)
    assert again is not None
    second = fake_model(named(tmp_path, "2"), loaded=SpanLoaded(mixing), blocks=again)

    second.warm_up()

    assert second.prefix_cache_bytes > 0
    assert again.warm.n_bytes == 0
    assert told(second.answer(ask("b"))).cached_tokens == 0
    assert told(second.answer(ask("a"))).cached_tokens == len(PROMPT) - 1
    assert again.counts.hits == 0
    second.close()
    again.close()


def test_attack_the_next_process_keeps_tenants_apart(tmp_path: Path) -> None:
    """As does the first."""
    blocks = store_of(tmp_path)
    model = fake_model(named(tmp_path, "1"), loaded=SpanLoaded(mixing), blocks=blocks)

    found = [told(model.answer(ask(tenant))).cached_tokens for tenant in ("a", "b")]
    model.close()
    blocks.flush()
    again = fake_model(named(tmp_path, "2"), loaded=SpanLoaded(mixing), blocks=blocks)
    found += [told(again.answer(ask(tenant))).cached_tokens for tenant in ("c", "b")]

    assert found == [0, 0, 0, len(PROMPT) - 1]
    again.close()
    blocks.close()


def test_memory_comes_before_the_disk(tmp_path: Path) -> None:
    """What the process remembers is not read; what it forgot is."""
    blocks = store_of(tmp_path)
    model = fake_model(
        tmp_path, loaded=SpanLoaded(mixing), blocks=blocks, prefix_cache_bytes=140 * 512
    )
    told(model.answer(ask("a")))
    told(model.answer(ask("a")))
    assert blocks.counts.hits == 0
    told(model.answer(ask("b")))  # in the memory's place
    blocks.flush()

    assert told(model.answer(ask("a"))).cached_tokens == len(PROMPT) - 1
    model.close()
    blocks.close()


class Gated(SpanLoaded):
    """From the second step on it waits to be let go."""

    def __init__(self) -> None:
        super().__init__(mixing, context=4000)
        self.is_there = threading.Event()
        self.may_go = threading.Event()

    def step(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> FloatArray:
        """See `Loaded`."""
        if self.fed:
            self.is_there.set()
            assert self.may_go.wait(20)
        return super().step(batch)


def test_what_was_computed_for_a_client_that_left_is_kept(tmp_path: Path) -> None:
    """It asks again, perhaps of another process, and does not pay twice."""
    blocks = store_of(tmp_path)
    long = Ask(tenant="a", prompt="abcdefghij" * 200, max_tokens=3)
    model = fake_model(named(tmp_path, "1"), loaded=(loaded := Gated()), blocks=blocks)

    async def leave() -> None:
        async with aclosing(model.answer(long)) as parts:
            reading = asyncio.ensure_future(anext(parts))
            await asyncio.to_thread(loaded.is_there.wait, 20)
            reading.cancel()
            await asyncio.sleep(0)
            loaded.may_go.set()
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(leave())
    model.close()
    blocks.flush()
    n_computed = sum(loaded.fed)
    again = fake_model(named(tmp_path, "2"), loaded=(second := Gated()), blocks=blocks)
    second.may_go.set()

    assert 512 <= n_computed < 2000
    assert told(again.answer(long)).cached_tokens == n_computed
    again.close()
    blocks.close()


def test_nothing_is_kept_where_nothing_is_wanted(tmp_path: Path) -> None:
    """No bytes, or no disk: not even a secret."""
    assert open_blocks(CacheSettings(blocks_bytes=0), tmp_path) is None
    assert open_blocks(CacheSettings(on_disk=False), tmp_path) is None
    assert not list(tmp_path.iterdir())


def named(place: Path, name: str) -> Path:
    """A folder in another."""
    (place / name).mkdir()
    return place / name


def ask(tenant: str) -> Ask:
    return Ask(tenant=tenant, prompt=PROMPT, max_tokens=9)


def told(parts: object) -> Ending:
    """Read an answer to its end."""

    async def read() -> Ending:
        async for part in parts:  # type: ignore[attr-defined] # of several types
            if isinstance(part, Ending):
                return part
        raise AssertionError("no ending")

    return asyncio.run(read())
