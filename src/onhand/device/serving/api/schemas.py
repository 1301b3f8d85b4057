"""How large a JSON schema of a request may be: looked at before anything is compiled of it."""

import json
from dataclasses import dataclass
from typing import Final

__all__ = ["ANSWER_SCHEMA", "TOOL_SCHEMA", "SchemaBounds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaBounds:
    """Ceilings of one schema.

    Attributes:
        depth: of objects and lists within one another.
        entries: keys and members of lists, all together.
        keys: of one object: each may come next, and answers wait for all.
        letters: of its JSON.
    """

    depth: int
    entries: int
    keys: int
    letters: int

    def why_not(self, schema: object) -> str | None:
        """Return why a schema is too large, or None; the cheap questions come first."""
        if self._is_large(schema):
            return (
                f"nests over {self.depth} deep, or has over {self.entries} entries or an object "
                f"of over {self.keys} keys"
            )
        n_letters = len(json.dumps(schema))
        if n_letters > self.letters:
            return f"has {n_letters} letters, at most {self.letters} are allowed"
        return None

    def _is_large(self, schema: object) -> bool:
        waiting, n_entries = [(schema, 0)], 0
        while waiting:
            value, depth = waiting.pop()
            members = list(value.values()) if isinstance(value, dict) else value
            if not isinstance(members, list):
                continue
            n_entries += len(members)
            if depth >= self.depth or n_entries > self.entries:
                return True
            if isinstance(value, dict) and len(value) > self.keys:
                return True
            waiting += [(member, depth + 1) for member in members]
        return False


TOOL_SCHEMA: Final = SchemaBounds(depth=32, entries=2048, keys=256, letters=32 * 2**10)
"""Of the arguments of one tool; there may be many."""

ANSWER_SCHEMA: Final = SchemaBounds(depth=32, entries=8192, keys=1024, letters=128 * 2**10)
"""Of a whole answer."""
