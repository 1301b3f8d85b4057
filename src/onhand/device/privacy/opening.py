"""From settings to what takes personal data out of requests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onhand.device.networks.session import NetworkSession, open_session
from onhand.device.privacy.names import NameFinder
from onhand.device.privacy.settings import PrivacySettings
from onhand.device.privacy.veil import Redaction

__all__ = ["opened_redaction"]


@contextmanager
def opened_redaction(settings: PrivacySettings, *, home: Path) -> Iterator[Redaction | None]:
    """Open what finds names, and close it with the block.

    Args:
        settings: what is wanted.
        home: the state folder.

    Yields:
        The redaction; None where there is to be none.

    Raises:
        OnhandError: if the bundle for names cannot be opened, or finds none.
    """
    if not settings.redact:
        yield None
    elif not settings.names:
        yield Redaction()
    else:
        with open_session(settings.names, home=home) as session:
            names = NameFinder(_Tokens(session), where=settings.names)
            yield Redaction(names=names)


class _Tokens:
    """See `TokenLabels`: a network of this device."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session
        self.labels: Sequence[str] = session.labels
        self.read = session.read
        self.places = session.places
        self.run = session.run
