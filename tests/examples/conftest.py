"""The examples stand beside the package, so their folder has to be found."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
