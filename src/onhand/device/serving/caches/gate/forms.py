"""What a word may be a form of, by its ending."""

from functools import lru_cache

from onhand.device.serving.caches.gate.english import IRREGULAR

__all__ = ["forms_of"]

_VOWELS = frozenset("aeiouy")


@lru_cache(maxsize=2**14)
def forms_of(word: str) -> frozenset[str]:
    """Return the words that a word may be a form of, itself among them.

    Endings of number and tense alone: "cities" is "city", "running" is "run"; "bigger" stays, for
    it is another thing to ask.

    Args:
        word: in small letters.
    """
    found = {word}
    if (base := IRREGULAR.get(word)) is not None:
        found.add(base)
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        found.add(word[:-1])
        if word.endswith("ies") and len(word) > 4:
            found.add(word[:-3] + "y")
        elif word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            found.add(word[:-2])
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) >= len(ending) + 2:
            found |= _bases(word[: -len(ending)])
            if ending == "ed" and word.endswith("ied"):
                found.add(word[:-3] + "y")
    return frozenset(found)


def _bases(stem: str) -> set[str]:
    if not _VOWELS & set(stem):
        return set()  # "king", "bed"
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "aeiou":
        # "running", but "telling" and "passing" keep both.
        return {stem, stem[:-1]} if stem[-1] in "lsfz" else {stem[:-1]}
    if len(stem) <= 3 and stem[-1] not in "aeiouwxy" and stem[-2:-1] and stem[-2] in _VOWELS:
        return {stem + "e"}  # "us-ing": "us" would double its last letter
    return {stem, stem + "e"}
