"""How a picture, a sound or a text becomes a network's inputs, as data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from onhand.core.errors import InputError
from onhand.core.outside import count, object_of, shown, word

__all__ = ["Feed", "PictureFeed", "SoundFeed", "TextFeed", "feed_from_json", "feed_to_json"]

_MOST_SIDE, _MOST_RATE, _MOST_SAMPLES, _MOST_TOKENS = 2**14, 2**20, 2**28, 2**20
_RESIZES = ("crop", "stretch", "pad", "none")
_CHANNELS: Final = {"rgb": 3, "bgr": 3, "gray": 1}
_LAYOUTS = ("nchw", "nhwc")
_FEATURES = ("wave", "log-mel", "mfcc")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFeed:
    """A picture for the first input: (1, C, H, W) or (1, H, W, C), x = (pixel - mean) / std.

    Attributes:
        height: of the input.
        width: of the input.
        resize: "crop" scales the short side to `short_side` and cuts the middle out; "stretch"
            scales both sides; "pad" scales the long side and fills the rest with gray 114; "none"
            leaves the picture as large as it is.
        short_side: in pixels, for "crop"; 0 for the larger of height and width.
        channels: "rgb", "bgr" or "gray".
        layout: "nchw" or "nhwc".
        mean: for each channel, where a pixel is 0 to 255.
        std: likewise.
    """

    height: int
    width: int
    resize: str = "crop"
    short_side: int = 0
    channels: str = "rgb"
    layout: str = "nchw"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)

    def __post_init__(self) -> None:
        for key, least in (("height", 1), ("width", 1), ("short_side", 0)):
            count({key: getattr(self, key)}, key, "picture", least=least, most=_MOST_SIDE)
        for key, known in (("resize", _RESIZES), ("channels", _CHANNELS), ("layout", _LAYOUTS)):
            word({key: getattr(self, key)}, key, "picture", known)
        if 0 < self.short_side < max(self.height, self.width):
            raise InputError(
                f"picture: short_side is {self.short_side}, must be 0 or at least "
                f"{max(self.height, self.width)}, which is cut out of it"
            )
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != _CHANNELS[self.channels] or not all(map(_is_number, numbers)):
                raise InputError(
                    f"picture: {name} is {shown(numbers)}, must be {_CHANNELS[self.channels]} "
                    f"finite numbers, one for each channel of {self.channels}"
                )
        if min(self.std) <= 0:
            raise InputError(f"picture: std is {shown(self.std)}, must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFeed:
    """A sound for the first input; it is cut or filled with silence to `n_samples`.

    Attributes:
        rate: samples per second.
        n_samples: that the network hears.
        features: "wave" from -1 to 1; "log-mel"; or "mfcc", their cosine transform.
        frame_s: seconds of a frame.
        hop_s: seconds from frame to frame.
        n_fft: points of the transform of a frame.
        n_mels: bands.
        n_coefficients: of "mfcc".
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends.
        mean: taken from the features.
        std: they are divided by it then.
    """

    rate: int
    n_samples: int
    features: str = "wave"
    frame_s: float = 0.030
    hop_s: float = 0.020
    n_fft: int = 512
    n_mels: int = 40
    n_coefficients: int = 10
    low_hz: float = 20.0
    high_hz: float = 4000.0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        most = {"rate": _MOST_RATE, "n_samples": _MOST_SAMPLES}
        for key in ("rate", "n_samples", "n_fft", "n_mels", "n_coefficients"):
            count({key: getattr(self, key)}, key, "sound", most=most.get(key, 2**16))
        word({"features": self.features}, "features", "sound", _FEATURES)
        for key in ("frame_s", "hop_s", "low_hz", "high_hz", "mean", "std"):
            if not _is_number(getattr(self, key)):
                raise InputError(f"sound: {key} is {shown(getattr(self, key))}, must be a number")
        if min(self.frame_s, self.hop_s, self.std) <= 0 or not 0 <= self.low_hz < self.high_hz:
            raise InputError("sound: frame, hop and std must be above 0, and low_hz below high_hz")
        if self.features != "wave" and not 1 <= round(self.frame_s * self.rate) <= self.n_fft:
            raise InputError(f"sound: a frame of {self.frame_s} s does not fit n_fft {self.n_fft}")
        if self.features == "mfcc" and self.n_coefficients > self.n_mels:
            raise InputError(f"sound: {self.n_coefficients} coefficients of {self.n_mels} bands")
        if round(self.hop_s * self.rate) < 1:
            raise InputError(f"sound: hop_s is {self.hop_s}, shorter than a sample")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeed:
    """A text, or two, through the bundle's `tokenizer.json`: (1, T) int64 each.

    Attributes:
        max_tokens: longer texts are cut, and the answer says so.
        ids: the input of token ids.
        mask: the input of ones where there are tokens; "" for none.
        types: the input of 0 for the first text and 1 for the second; "" for none.
    """

    max_tokens: int
    ids: str = "input_ids"
    mask: str = "attention_mask"
    types: str = "token_type_ids"

    def __post_init__(self) -> None:
        count({"max_tokens": self.max_tokens}, "max_tokens", "text", most=_MOST_TOKENS)
        for name in (self.ids, self.mask, self.types):
            if not _is_short_text(name):
                raise InputError(f"text: an input is called {shown(name)}, must be a short text")
        if not self.ids:
            raise InputError("text: ids is empty, must name the input of token ids")


Feed = PictureFeed | SoundFeed | TextFeed
_KINDS: Final[Mapping[str, type[Feed]]] = {
    "picture": PictureFeed,
    "sound": SoundFeed,
    "text": TextFeed,
}


def feed_to_json(feed: Feed) -> dict[str, object]:
    """Return a JSON object that `feed_from_json` reads."""
    kind = next(name for name, known in _KINDS.items() if isinstance(feed, known))
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(feed).items()}
    return {"kind": kind} | plain


def feed_from_json(value: object) -> Feed:
    """Read what `feed_to_json` wrote; it may come from outside.

    Args:
        value: a parsed JSON value.

    Returns:
        The feed.

    Raises:
        InputError: if a key is missing or unknown, or a value out of bounds.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"feed: must be a JSON object, found {type(value).__name__}")
    kind = _KINDS[word(value, "kind", "feed", _KINDS)]
    table = object_of(value, "feed", {"kind"} | {field.name for field in fields(kind)})
    # Any: the class checks each value.
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    given.pop("kind", None)
    try:
        return kind(**given)
    except TypeError as error:
        raise InputError(f"feed: {error}") from error


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and abs(value) < 1e12


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 200
