"""`python -m onhand`: the command line."""

import sys

__all__ = ["run"]


def run() -> int:
    """Run the command line; see `onhand.cli.main`."""
    from onhand.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
