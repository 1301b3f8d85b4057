"""Answers that can be rated by their id: within bounds, and each tenant's own."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.serving.feedback.recent import RecentAnswers
from onhand.device.template import Message
from onhand.device.tools.kinds import CallPart, Tool, ToolUse

_LAMP = Tool(name="lamp", description="", parameters={"type": "object"})
END = Ending(reason="stop", prompt_tokens=1, cached_tokens=0, generated_tokens=1)


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def keep(
    recent: RecentAnswers,
    name: str,
    texts: Sequence[str] = ("yes",),
    *,
    tenant: str = "anna",
    is_whole: bool = True,
    calls: bool = False,
) -> None:
    """Give an answer, letter by letter."""
    use = ToolUse(tools=(_LAMP,), names=("lamp",)) if calls else None
    asks = [Ask(tenant=tenant, prompt=[Message("user", "is it on?")], tools=use) for _ in texts]

    async def parts() -> AsyncGenerator[tuple[int, Piece | Ending]]:
        for index, text in enumerate(texts):
            for letter in text:
                yield index, Piece(letter)
            if calls:
                yield index, Piece("", call=CallPart(0, id="a", name="lamp"))
                whole = index == 0
                yield index, Piece("", call=CallPart(0, arguments='{"on": true}', is_end=whole))
            if is_whole:
                yield index, END

    async def read() -> None:
        seen = [one async for one in recent.noting(name, "toy", asks, parts())]
        assert len(seen) == sum(len(text) + is_whole + 2 * calls for text in texts)

    asyncio.run(read())


def recent_of(**bounds: float) -> RecentAnswers:
    """Ten answers of each tenant for ten seconds."""
    given = {"most": 10, "most_bytes": 10**6, "most_s": 10.0, **bounds}
    return RecentAnswers(**given)  # type: ignore[arg-type] # its bounds


def test_an_answer_is_found_by_its_id() -> None:
    """With and without the prefix that its kind has; each choice on its own."""
    recent = recent_of()
    keep(recent, "abc", ["yes", "no"])

    for name in ("abc", "chatcmpl-abc", "cmpl-abc", "resp_abc"):
        assert [one.text for one in recent.find("anna", name)] == ["yes", "no"]
    assert recent.find("anna", "abd") == ()


def test_another_tenant_finds_nothing() -> None:
    """Whatever id it gives, and also where both have one of the same."""
    recent = recent_of()
    keep(recent, "abc", ["hers"])
    keep(recent, "abc", ["his"], tenant="ben")

    assert recent.find("carl", "abc") == ()
    assert recent.find("ben", "abc")[0].text == "his"


def test_an_answer_that_broke_off_is_not_kept() -> None:
    """Nobody can say what it would have been."""
    recent = recent_of()
    keep(recent, "abc", is_whole=False)

    assert (recent.find("anna", "abc"), len(recent), recent.n_bytes) == ((), 0, 0)


def test_the_oldest_of_a_tenant_goes_first() -> None:
    """One tenant's answers do not push out another's, as long as there is memory."""
    recent = recent_of(most=2)
    keep(recent, "b", tenant="ben")
    for name in ("1", "2", "3"):
        keep(recent, name)

    assert [bool(recent.find("anna", name)) for name in ("1", "2", "3")] == [False, True, True]
    assert recent.find("ben", "b")


def test_memory_is_bounded() -> None:
    """Of all tenants together; one that is too large alone is not kept."""
    recent = recent_of(most_bytes=2000)
    for name in "abcdef":
        keep(recent, name, tenant=name)
    keep(recent, "large", ["x" * 3000])

    assert recent.n_bytes <= 2000
    assert recent.find("f", "f")
    assert not recent.find("a", "a")
    assert not recent.find("anna", "large")


def test_answers_are_forgotten_after_a_while() -> None:
    """And what they took is free."""
    clock = Clock()
    recent = RecentAnswers(most=10, most_bytes=10**6, most_s=10.0, clock=clock)
    keep(recent, "abc")
    clock.now_s = 10.5

    assert recent.find("anna", "abc") == ()
    assert recent.n_bytes == 0


def test_none_are_kept_where_none_may_be() -> None:
    """Zero is none."""
    recent = recent_of(most=0)
    keep(recent, "abc")

    assert len(recent) == 0
