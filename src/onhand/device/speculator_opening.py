"""From what a user asks for to what drafts tokens: the text so far, or a smaller bundle."""

from pathlib import Path

from onhand.core.bundle import read_bundle
from onhand.device.drafters import DraftModel, PromptLookup, check_same_tokens
from onhand.device.engine_opening import open_engine
from onhand.device.engines.base import Loaded
from onhand.device.speculate import Speculator
from onhand.device.text import Tokenizer
from onhand.device.text_files import read_text_files

__all__ = ["open_speculator"]


def open_speculator(
    speculate: Path | str | None,
    tokenizer: Tokenizer,
    loaded: Loaded,
    *,
    engine: str | None,
    threads: int | None,
) -> Speculator | None:
    """Open what drafts tokens for a model.

    Args:
        speculate: "lookup", the text so far; the folder of a smaller bundle; None or "off", nobody.
        tokenizer: the model's.
        loaded: its weights.
        engine: of the smaller bundle; None for the best that works.
        threads: of its steps; None for what this process may use.

    Returns:
        What drafts; close it. None for nobody.

    Raises:
        OnhandError: if the bundle cannot be opened here, or has other tokens.
    """
    if speculate is None or speculate == "off":
        return None
    if speculate == "lookup":
        return Speculator(PromptLookup())
    smaller = read_bundle(Path(speculate))
    own = read_text_files(smaller).tokenizer
    check_same_tokens(tokenizer, own, name=smaller.manifest.name)
    variant, _ = smaller.variant(None)
    guesses, _, _ = open_engine(smaller, variant=variant, engine=engine, threads=threads)
    drafter = DraftModel(guesses, own, vocab_size=loaded.vocab_size, context=loaded.context)
    return Speculator(drafter)
