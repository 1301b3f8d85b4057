"""What `benchmarks.beside_others` says of its samples."""

from benchmarks.beside_others import table


def test_ratios_are_of_rounds() -> None:
    """Their median is not the ratio of medians: each round sees another machine."""
    ways = {
        "gives way": [10.0, 40.0, 90.0],
        "keeps them": [10.0, 20.0, 30.0],
        "one thread": [5.0, 5.0, 5.0],
    }

    lines = table({"tiny": {"1": ways}}).splitlines()

    assert lines[-1] == (
        "| tiny | 1 | 40 (10 to 90)/s | 20 (10 to 30)/s | 5 (5 to 5)/s | 2.00 (1.00 to 3.00) |"
    )
