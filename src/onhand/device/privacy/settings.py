"""`[privacy]` of `serve.toml`: what is done with requests of the class "redact"."""

from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["PrivacySettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySettings:
    """See above.

    Attributes:
        redact: whether personal data are replaced by placeholders before such a request leaves;
            without, it goes only to backends that may see them.
        names: folder of a bundle that labels tokens, which finds names of persons; "" for none:
            names leave then, and replies say that nothing looked for them.
    """

    redact: bool = True
    names: str = ""

    def placed(self, beside: Path) -> "PrivacySettings":
        """Return them with a folder that was given beside the file.

        Args:
            beside: the file's folder.
        """
        if not self.names:
            return self
        return replace(self, names=str(beside / Path(self.names).expanduser()))
