"""Sounds for a network's input: read, brought to its rate and length, and turned into features."""

import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.feed import SoundFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.base import Array
from onhand.device.vault.above import opened

__all__ = ["SOUND_SUFFIXES", "feed_sound", "read_sound"]

SOUND_SUFFIXES = (".wav",)
_MOST_FRAMES = 2**28
_Doubles = NDArray[np.float64]


def read_sound(path: Path) -> tuple[FloatArray, int]:
    """Read a WAV file of 8, 16, 24 or 32 bits.

    Args:
        path: the file; several channels become their mean.

    Returns:
        (T,) float32 from -1 to 1, and samples per second.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with opened(path, "memory") as stream, wave.open(stream, "rb") as file:
            n_channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if file.getnframes() > _MOST_FRAMES or not 1 <= width <= 4:
                raise InputError(
                    f"{path}: {file.getnframes()} frames of {width} bytes are too many"
                )
            n_frames = file.getnframes()
            content = file.readframes(n_frames)
    # RuntimeError: a piece of the file says that it is longer than the file.
    except (OSError, EOFError, RuntimeError, wave.Error) as error:
        why = str(error) or "it ends too early"
        raise InputError(
            f"{path}: not a WAV file that can be read: {why}; give one of whole numbers (PCM) of "
            "8, 16, 24 or 32 bits"
        ) from error
    whole = len(content) // (width * n_channels) * width * n_channels
    if whole == 0 or rate < 1:
        raise InputError(f"{path}: holds no sound")
    if whole < n_frames * width * n_channels:
        found = whole // (width * n_channels)
        raise InputError(f"{path}: is cut off: {found} of {n_frames} frames are there")
    if width == 1:
        samples = np.frombuffer(content[:whole], np.uint8).astype(np.float32) / 128 - 1
    else:
        # The high bytes of a 32-bit number, whatever the width.
        bytes_ = np.zeros((whole // width, 4), np.uint8)
        bytes_[:, 4 - width :] = np.frombuffer(content[:whole], np.uint8).reshape(-1, width)
        samples = (bytes_.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    mono: FloatArray = samples.reshape(-1, n_channels).mean(axis=1, dtype=np.float32)
    return mono, rate


def feed_sound(samples: FloatArray, rate: int, feed: SoundFeed, info: ArrayInfo) -> Array:
    """Turn a sound into a network's input.

    Args:
        samples: (T,) float32 from -1 to 1.
        rate: samples per second.
        feed: how.
        info: the input.

    Returns:
        The wave (1, n_samples) or features (1, frames, bands), in the shape of the input.

    Raises:
        InputError: if the features do not fit the input's shape.
    """
    heard = _resampled(samples, rate, feed.rate)[: feed.n_samples]
    heard = np.pad(heard, (0, feed.n_samples - len(heard)))
    features = heard if feed.features == "wave" else _features(heard, feed)
    scaled = ((features - feed.mean) / feed.std).astype(info.dtype)
    shape = tuple(1 if size is None else size for size in info.shape)
    if np.prod(shape) != scaled.size:
        raise InputError(f"a sound gives features {scaled.shape}, input {info.name!r} is {shape}")
    return scaled.reshape(shape)


def _resampled(samples: FloatArray, rate: int, wanted: int) -> FloatArray:
    """Bring a sound to another rate through its spectrum."""
    if rate == wanted:
        return samples
    n = max(round(len(samples) * wanted / rate), 1)
    spectrum = np.fft.rfft(samples)
    changed = np.zeros(n // 2 + 1, dtype=spectrum.dtype)
    shared = min(len(spectrum), len(changed))
    changed[:shared] = spectrum[:shared]
    heard: FloatArray = (np.fft.irfft(changed, n) * (n / len(samples))).astype(np.float32)
    return heard


def _features(samples: FloatArray, feed: SoundFeed) -> FloatArray:
    """Return (frames, bands) log mel energies, or their first cosine coefficients.

    Source:
        As TensorFlow's `tf.signal` computes them: periodic Hann window, magnitudes, HTK's mel
        scale, and an orthonormal DCT-II (tensorflow/python/ops/signal).
    """
    frame, hop = round(feed.frame_s * feed.rate), round(feed.hop_s * feed.rate)
    if len(samples) < frame:
        samples = np.pad(samples, (0, frame - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, frame)[::hop]  # (F, frame)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    spectra = np.abs(np.fft.rfft(frames * window, feed.n_fft))  # (F, n_fft / 2 + 1)
    mel = np.log(spectra @ _mel_weights(feed) + 1e-6)  # (F, n_mels)
    if feed.features == "mfcc":
        mel = mel @ _cosines(feed.n_mels, feed.n_coefficients)
    features: FloatArray = mel.astype(np.float32)
    return features


@lru_cache(maxsize=4)
def _mel_weights(feed: SoundFeed) -> _Doubles:
    """Return (bins, bands): triangles that are equal steps of HTK's mel scale apart."""

    def to_mel(hz: _Doubles) -> _Doubles:
        mel: _Doubles = 1127.0 * np.log1p(hz / 700.0)
        return mel

    bins = to_mel(np.linspace(0, feed.rate / 2, feed.n_fft // 2 + 1))[1:, None]
    low, high = to_mel(np.array([feed.low_hz, feed.high_hz]))
    edges = np.linspace(low, high, feed.n_mels + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    weights = np.maximum(0, np.minimum(rising, falling))
    return np.vstack([np.zeros((1, feed.n_mels)), weights])


@lru_cache(maxsize=4)
def _cosines(n_mels: int, n: int) -> _Doubles:
    k = np.arange(n)
    angles = np.pi / n_mels * (np.arange(n_mels)[:, None] + 0.5) * k
    cosines: _Doubles = np.cos(angles) * np.sqrt(2.0 / n_mels)
    return cosines
