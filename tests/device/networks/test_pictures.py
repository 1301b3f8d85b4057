"""Pictures as networks see them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import feed_picture, parse_picture, read_picture

PLAIN = ArrayInfo(name="x", dtype="float32", shape=(1, 3, 4, 4))


def test_pixels_are_normalised_channel_by_channel() -> None:
    """(pixel - mean) / std, in the layout of the input."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    feed = PictureFeed(height=4, width=4, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 5.0))

    made = feed_picture(pixels, feed, PLAIN)

    wanted = ((pixels - np.array([1, 2, 3])) / np.array([2, 4, 5])).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(made, wanted, rtol=1e-6)
    assert made.dtype == np.float32


def test_colours_change_places_and_mix() -> None:
    """BGR turns them round; gray weighs them as ITU-R BT.601 does."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    pixels[0, 0] = (10, 20, 200)
    info = ArrayInfo(name="x", dtype="float32", shape=(1, 1, 1, None))
    feed = PictureFeed(height=1, width=1, layout="nhwc", std=(1.0, 1.0, 1.0))
    plain = replace(feed, channels="gray", mean=(0.0,), std=(1.0,))

    turned = feed_picture(pixels, replace(feed, channels="bgr"), info)
    gray = feed_picture(pixels, plain, info)

    assert turned.ravel().tolist() == [200, 20, 10]
    assert gray.ravel().tolist() == [round(2.99 + 11.74 + 22.8)]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_become_eight(tmp_path: Path, name: str) -> None:
    """As gray levels of the same share, not cut off at 255."""
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / name)

    assert read_picture(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_pixels_of_floats_have_no_scale(tmp_path: Path) -> None:
    """What is white in them, nobody knows."""
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.array([[0.0, 0.5]], np.float32)).save(tmp_path / "a.tif")

    with pytest.raises(InputError, match="has pixels of 32 bits"):
        read_picture(tmp_path / "a.tif")


def test_the_middle_is_cut_out() -> None:
    """A picture whose short side is as wanted is not scaled."""
    pixels = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    feed = PictureFeed(height=4, width=4, layout="nhwc", std=(1.0, 1.0, 1.0))

    np.testing.assert_array_equal(feed_picture(pixels, feed, PLAIN)[0], pixels[:, 2:6])


def test_a_whole_number_is_rounded_and_kept_in_range() -> None:
    """A network of uint8 gets uint8."""
    info = ArrayInfo(name="x", dtype="int8", shape=(1, 1, 1, 3))
    feed = PictureFeed(height=1, width=1, layout="nhwc", mean=(0.0,) * 3, std=(1.0,) * 3)

    made = feed_picture(np.array([[[3, 100, 200]]], np.uint8), feed, info)

    assert made.dtype == np.int8
    assert made.ravel().tolist() == [3, 100, 127]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "is float32 of shape"),
        (np.zeros((4, 4, 5), np.uint8), "has 5 channels, must have 1 or 3"),
        (np.zeros((0, 4, 3), np.uint8), "must be \\(H, W, 3\\)"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    """With its dtype and shape."""
    np.save(tmp_path / "a.npy", array)

    with pytest.raises(InputError, match=message):
        read_picture(tmp_path / "a.npy")


def test_a_gray_array_gets_three_channels(tmp_path: Path) -> None:
    """Each the same."""
    np.save(tmp_path / "a.npy", np.array([[7]], np.uint8))

    assert read_picture(tmp_path / "a.npy").tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize("name", ["a.npy", "a.png"])
def test_attack_a_damaged_file(tmp_path: Path, name: str) -> None:
    """Whatever its bytes, one sentence."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(40)))

    with pytest.raises(InputError, match=f"{name}: not an? "):
        read_picture(tmp_path / name)


def test_attack_bytes_that_are_no_picture_learn_no_address() -> None:
    """Pillow's own message names a place in memory."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    with pytest.raises(InputError) as caught:
        parse_picture(b"\0\0\0", where="input")

    assert str(caught.value) == (
        "input: not a picture that can be read: its bytes are of no known format"
    )


def test_a_picture_is_scaled_and_padded() -> None:
    """The long side fits, the rest is gray."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    feed = PictureFeed(height=4, width=4, resize="pad", layout="nhwc", std=(1.0, 1.0, 1.0))

    made = feed_picture(np.full((2, 4, 3), 50, np.uint8), feed, PLAIN)[0, :, :, 0]

    assert made.tolist() == [[114] * 4, [50] * 4, [50] * 4, [114] * 4]


def test_a_picture_is_stretched_and_shrunk() -> None:
    """One colour stays that colour."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    pixels = np.full((9, 31, 3), 77, np.uint8)
    for resize in ("stretch", "crop"):
        feed = PictureFeed(height=4, width=4, resize=resize, short_side=5, std=(1.0, 1.0, 1.0))

        assert set(feed_picture(pixels, feed, PLAIN).ravel().tolist()) == {77.0}
