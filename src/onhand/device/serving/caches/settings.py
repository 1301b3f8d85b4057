"""`[cache]` of a server's settings."""

from dataclasses import dataclass

from onhand.core.errors import InputError
from onhand.device.serving.caches.closeness import Closeness

__all__ = ["CacheSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """`[cache]`: what is kept of answers.

    Attributes:
        exact_bytes: of answers that the same request gets again; 0 keeps none.
        blocks_bytes: on the disk, of what conversations remember; 0 keeps nothing there.
        warm_bytes: in memory, of the latest of those, read when the server starts.
        on_disk: whether what is kept outlives the process.
        semantic_encoder: name of the served bundle for text-embedding by whose vectors answers
            to similar questions are found; "" finds none.
        semantic_bytes: of questions, answers and vectors that are kept for that.
        semantic_words: folder of WordNet's files, by which more questions count as the same in
            other words; "" for the project's own lists alone.
        semantic_models: whose answers; empty for those of all models.
        semantic_similarity: least cosine of two questions that have the same words.
        semantic_reworded: least cosine where some are said in other words.
        semantic_apart: by how much the nearest has to be nearer than a second one.
    """

    exact_bytes: int = 64 * 2**20
    blocks_bytes: int = 2**30
    warm_bytes: int = 64 * 2**20
    on_disk: bool = True
    semantic_encoder: str = ""
    semantic_bytes: int = 32 * 2**20
    semantic_words: str = ""
    semantic_models: tuple[str, ...] = ()
    semantic_similarity: float = 0.85
    semantic_reworded: float = 0.85
    semantic_apart: float = 0.05

    def __post_init__(self) -> None:
        for name in ("exact_bytes", "blocks_bytes", "warm_bytes", "semantic_bytes"):
            if (value := int(getattr(self, name))) < 0:
                raise InputError(f"{name} is {value}, must be 0 or more")
        _ = self.closeness

    @property
    def closeness(self) -> Closeness:
        """How near two questions have to be."""
        return Closeness(
            same=self.semantic_similarity,
            reworded=self.semantic_reworded,
            apart=self.semantic_apart,
        )
