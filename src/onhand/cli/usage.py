"""A wrong command line, told in one sentence of our style."""

import re

__all__ = ["usage_sentence"]

_OPTIONS = re.compile(r"\s*\(?Possible options: ([^)]*)\)?")
_MEANT = re.compile(r"[.;]?\s*Did you mean ([^?]*)\?")


def usage_sentence(message: str, *, command: str) -> str:
    """Turn the command line parser's message into one sentence: what is wrong, what to do.

    Args:
        message: as the parser wrote it, such as "No such option: --jsn (Possible options: --json)".
        command: as the user called it: "onhand build".

    Returns:
        Such as "no such option: --jsn; did you mean --json?".
    """
    text = " ".join(message.split()).replace("Value error, ", "")
    near = ""
    for pattern in (_OPTIONS, _MEANT):
        if match := pattern.search(text):
            near = " or ".join(name.strip(" '\"") for name in match[1].split(","))
            text = text[: match.start()] + text[match.end() :]
    text = text.rstrip(" .").replace(". ", "; ")
    text = text[:1].lower() + text[1:]
    return f"{text}; did you mean {near}?" if near else f"{text}; see {command} --help"
