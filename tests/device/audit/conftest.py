"""Tests do not wait for the disk itself."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def without_waiting_for_disks() -> Iterator[None]:
    """What a loss of power would take is not tried here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
