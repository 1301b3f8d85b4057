"""Commands that need the host's packages say which to install where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from onhand.core.errors import InputError

__all__ = ["host_extra"]

# What the extra `host` of pyproject.toml installs, by the names that are imported.
_PACKAGES = ("gguf", "huggingface_hub", "matplotlib", "onnx")


@contextmanager
def host_extra(what: str) -> Iterator[None]:
    """Turn a missing package of the host extra into one sentence.

    Args:
        what: what needs it, as the beginning of the sentence: "building".

    Yields:
        Nothing.

    Raises:
        InputError: if a package of the extra is missing.
        ImportError: if another import fails: that is ours to repair.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _PACKAGES:
            raise
        raise InputError(
            f'{what} needs {missing}, which is not installed: pip install "onhand[host]"'
        ) from error
