"""Progress that shows nothing."""

from onhand.core.progress import Progress, Quiet


def test_quiet_takes_every_message() -> None:
    """The default in Python offers all that long work calls, and prints nothing."""
    progress: Progress = Quiet()

    progress.start("quantizing", 3)
    progress.advance(1.5)
    progress.note("the tokenizer has no chat template")
