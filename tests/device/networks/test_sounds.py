"""Sounds as networks hear them."""

import wave
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.core.feed import SoundFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.sounds import feed_sound, read_sound

WAVE = ArrayInfo(name="x", dtype="float32", shape=(1, 8))


def write_wave(path: Path, samples: np.ndarray, *, width: int, channels: int = 1) -> None:
    """A file of whole numbers."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())


@pytest.mark.parametrize(
    ("samples", "width"),
    [
        (np.array([0, 128, 192], np.uint8), 1),
        (np.array([-(2**15), 0, 2**14], "<i2"), 2),
        (np.array([[0, 0, 0x80], [0, 0, 0], [0, 0, 0x40]], np.uint8), 3),
        (np.array([-(2**31), 0, 2**30], "<i4"), 4),
    ],
)
def test_every_width_gives_minus_one_to_one(
    tmp_path: Path, samples: np.ndarray, width: int
) -> None:
    """The lowest, silence, and half of the highest."""
    write_wave(tmp_path / "a.wav", samples, width=width)

    heard, rate = read_sound(tmp_path / "a.wav")

    assert rate == 8000
    np.testing.assert_allclose(heard, [-1, 0, 0.5], atol=1e-6)


def test_channels_become_their_mean(tmp_path: Path) -> None:
    """Two that cancel give silence."""
    write_wave(tmp_path / "a.wav", np.array([4, -4, 8, -8], "<i2"), width=2, channels=2)

    assert read_sound(tmp_path / "a.wav")[0].tolist() == [0, 0]


def test_half_a_sound_is_no_sound(tmp_path: Path) -> None:
    """The head says how long it is."""
    write_wave(tmp_path / "a.wav", np.zeros(100, "<i2"), width=2)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:144])

    with pytest.raises(InputError, match="is cut off: 50 of 100 frames"):
        read_sound(tmp_path / "a.wav")


def test_attack_a_piece_that_is_longer_than_its_file(tmp_path: Path) -> None:
    """The standard library raises an error of its own kind there."""
    write_wave(tmp_path / "a.wav", np.zeros(10, "<i2"), width=2)
    content = (tmp_path / "a.wav").read_bytes()[:36]
    (tmp_path / "a.wav").write_bytes(content + b"LIST" + b"\x00\x00\x00\x80" + bytes(10))

    with pytest.raises(InputError, match="not a WAV file"):
        read_sound(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVEfmt ", bytes(99)])
def test_attack_a_damaged_sound(tmp_path: Path, content: bytes) -> None:
    """One sentence."""
    (tmp_path / "a.wav").write_bytes(content)

    with pytest.raises(InputError, match="not a WAV file"):
        read_sound(tmp_path / "a.wav")


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    """Silence of no length is no sound."""
    write_wave(tmp_path / "a.wav", np.zeros(0, "<i2"), width=2)

    with pytest.raises(InputError, match="holds no sound"):
        read_sound(tmp_path / "a.wav")


def test_a_sound_is_cut_or_filled() -> None:
    """To the samples that the network hears."""
    feed = SoundFeed(rate=8000, n_samples=8)

    made = feed_sound(np.ones(3, np.float32), 8000, feed, WAVE)

    assert made.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert feed_sound(np.ones(30, np.float32), 8000, feed, WAVE).tolist() == [[1] * 8]


def test_another_rate_keeps_the_tone() -> None:
    """A sine of 100 Hz is one at both rates."""
    feed = SoundFeed(rate=8000, n_samples=800)
    info = ArrayInfo(name="x", dtype="float32", shape=(1, 800))

    def tone(rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * 100 * np.arange(rate // 10) / rate).astype(np.float32)

    np.testing.assert_allclose(feed_sound(tone(16000), 16000, feed, info)[0], tone(8000), atol=1e-4)


def test_features_take_the_shape_of_the_input() -> None:
    """Frames and bands; a tone is loudest in its own band; MFCC are its cosine transform."""
    samples = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    mel = SoundFeed(rate=16000, n_samples=16000, features="log-mel")
    info = ArrayInfo(name="x", dtype="float32", shape=(None, 49, 40, 1))

    bands = feed_sound(samples, 16000, mel, info)[0, :, :, 0]

    # 1000 Hz is 1000 mel of HTK; 42 edges stand from 20 to 4000 Hz.
    low, high = 1127 * np.log1p(np.array([20, 4000]) / 700)
    place = (1127 * np.log1p(1000 / 700) - low) / (high - low) * 41 - 1
    assert np.all(np.abs(bands.argmax(axis=1) - place) <= 1)
    few = SoundFeed(rate=16000, n_samples=16000, features="mfcc", n_coefficients=10)
    first = ArrayInfo(name="x", dtype="float32", shape=(1, 490))
    coefficients = feed_sound(samples, 16000, few, first).reshape(49, 10)
    np.testing.assert_allclose(coefficients[:, 0], bands.sum(axis=1) * np.sqrt(2 / 40), rtol=1e-4)


def test_features_that_do_not_fit_are_refused() -> None:
    """With both shapes."""
    feed = SoundFeed(rate=8000, n_samples=9)

    with pytest.raises(InputError, match=r"a sound gives features \(9,\), input 'x' is \(1, 8\)"):
        feed_sound(np.ones(3, np.float32), 8000, feed, WAVE)
