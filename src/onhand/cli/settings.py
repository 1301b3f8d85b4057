"""What the environment says, read once by `main` and handed to the command."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command gets from the environment.

    Attributes:
        home_folder: ONHAND_HOME, or None where it is not set.
        environment: all of it, for settings that name a variable which holds a secret.
    """

    home_folder: Path | None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def home(self) -> Path:
        """Return the state folder; it need not exist.

        Raises:
            ResourceError: if ONHAND_HOME is not set and the user has no home folder.
        """
        home = self.home_folder
        if home is None:
            from onhand.device.state import default_home

            home = default_home()
        # Only here is it known what the environment says; who opens the vault knows the folder.
        if (home / "vault.json").exists():
            from onhand.device.vault.sources import Asking
            from onhand.device.vault.vault import use_secrets

            use_secrets(Asking(self.environment))
        return home
