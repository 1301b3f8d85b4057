"""How much one request may ask for: what costs memory or time before anything is computed."""

from typing import Final

__all__ = [
    "MOST_BIASES",
    "MOST_CHOICES",
    "MOST_CLASSES",
    "MOST_INPUTS",
    "MOST_PROMPTS",
    "MOST_SCORES",
    "MOST_STOPS",
    "MOST_TOKENS",
    "MOST_TOOLS",
]

MOST_CHOICES: Final = 16
"""Answers of one request, over all of its prompts."""
MOST_PROMPTS: Final = 16
MOST_STOPS: Final = 4
MOST_SCORES: Final = 20
"""Likely tokens that are named beside each chosen one."""
MOST_TOKENS: Final = 2**31 - 1
"""Of an answer; the model's context is the bound that counts."""
MOST_BIASES: Final = 1024
MOST_TOOLS: Final = 128
MOST_INPUTS: Final = 2048
"""Texts that become vectors."""
MOST_CLASSES: Final = 1000
