"""`make demo`: build the house assistant under a budget, show the evidence, ask it three commands.

Offline, from the weights in this folder; what it writes lies in `out/`.
"""

import shutil
import sys
import time
from itertools import islice
from pathlib import Path

from examples.house_assistant.evaluate import CALIBRATION, HELD_OUT, score
from examples.house_assistant.generate import read_examples

import onhand
from onhand.cli.main import main as command
from onhand.device.template import Message

__all__ = ["main"]

MODEL = Path(__file__).parent / "model"
OUT = Path("out")
BUNDLE = OUT / "house-assistant"
BUDGET = "disk=4MiB,ram=160MiB,quality=3%,decode=100/s"
N_EXAMPLES = 200
QUESTIONS = (
    "could you set the lamp in the reading nook to forty percent and lock the back door",
    "swich off the heatr in the garage at ten to seven",
    "把主卧的窗帘拉上，再把空调调到二十六度",  # noqa: RUF001 - Chinese punctuation
)


def run(*arguments: str) -> None:
    """Run one command as a user would, and end the demo if it fails."""
    print(f"\n$ onhand {' '.join(arguments)}", flush=True)
    if code := command(arguments):
        sys.exit(code)


def main() -> None:
    """Run the demo."""
    started = time.perf_counter()
    OUT.mkdir(exist_ok=True)
    if BUNDLE.exists():
        shutil.rmtree(BUNDLE)
    run(
        *("build", str(MODEL), "-o", str(BUNDLE), "--bits", "4"),
        *("--budget", BUDGET, "--calibrate", str(CALIBRATION)),
    )
    run("verify", str(BUNDLE))
    with onhand.open(BUNDLE) as session:
        print("\nThree commands that nobody wrote before:")
        for question in QUESTIONS:
            print(f"  > {question}\n    ", end="")
            for piece in session.generate([Message("user", question)], max_tokens=128):
                print(piece, end="", flush=True)
            print()
        examples = list(islice(read_examples(HELD_OUT), N_EXAMPLES))
        right = score(
            examples,
            lambda asked: session.complete([Message("user", asked)], max_tokens=160),
        )
    found, asked = right.right["all"], right.total["all"]
    print(f"\nThe action is right for {found} of {asked} commands held out in training")
    print(f"(the first {N_EXAMPLES} of {HELD_OUT.name}, phrased by rules that training never saw).")
    print(f"\nThe evidence as a page: {BUNDLE / 'report.html'}")
    print(f"Talk to it: .venv/bin/onhand chat {BUNDLE}")
    print(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
