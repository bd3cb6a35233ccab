import os
import struct
from pathlib import Path

import numpy as np
import pytest

from lim_keras.errors import DataError
from lim_keras.raster.images import file_format, read_header, read_image, read_info, read_valid
from lim_keras.raster.masks import read_labels

RGB = np.arange(24 * 30 * 3, dtype=np.uint32).reshape(24, 30, 3).astype(np.uint8)
PLAIN = np.tile(np.uint8([10, 200]), (16, 15))


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_bands_come_in_rgb_order(tmp_path, write_picture, ending):
    red = np.zeros((16, 20, 3), np.uint8)
    red[..., 0] = 200
    image = read_image(write_picture(tmp_path / f"a{ending}", red))
    assert image.dtype == np.uint8 and image.shape == (16, 20, 3)
    np.testing.assert_allclose(image.mean((0, 1)), [200, 0, 0], atol=2)  # JPEG is off by one or two


@pytest.mark.parametrize(
    ("shape", "dtype", "bands"),
    [((9, 7), np.uint8, 1), ((9, 7), np.uint16, 1), ((9, 7, 3), np.uint16, 3), ((9, 7, 4), np.uint8, 3)],
)
def test_header_and_pixels_agree(tmp_path, write_picture, shape, dtype, bands):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    path = write_picture(tmp_path / "a.png", array)
    info, image = read_info(path), read_image(path)
    assert (info.height, info.width, info.bands) == image.shape == (9, 7, bands)
    assert info.dtype == image.dtype.name == np.dtype(dtype).name
    assert (info.crs, info.transform, info.gsd_m) == ("", None, None)
    np.testing.assert_array_equal(image, array.reshape(9, 7, -1)[..., :bands])


def test_format_is_told_by_content_not_by_name(tmp_path, write_picture):
    jpeg = write_picture(tmp_path / "a.jpg", RGB).rename(tmp_path / "a.png")
    assert file_format(jpeg) == "jpeg"
    assert read_image(jpeg).shape == RGB.shape


def test_exif_orientation_is_not_applied(tmp_path, write_picture):
    path = write_picture(tmp_path / "a.jpg", RGB)
    # A TIFF header and one directory entry: tag 0x0112 (orientation), type 3 (short), count 1, value 6 (turned).
    directory = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + directory
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:])
    assert read_image(path).shape == (24, 30, 3)
    assert (read_info(path).height, read_info(path).width) == (24, 30)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, write_picture, ending, share):
    path = write_picture(tmp_path / f"a{ending}", PLAIN)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"a\{ending}: the file is truncated"):
        read_image(path)


def test_truncated_jpeg_padded_with_zeros_is_refused(tmp_path, write_picture):
    """A file of an interrupted download with reserved size; the end marker of a thumbnail must not count."""
    path = write_picture(tmp_path / "a.jpg", RGB)
    data = path.read_bytes()
    thumbnail = b"\xff\xe1" + struct.pack(">H", 6) + b"\xff\xd8\xff\xd9"
    half = data[: len(data) // 2 + 300]
    path.write_bytes(data[:2] + thumbnail + half[2:].ljust(len(data), b"\0"))
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path, write_picture):
    path = write_picture(tmp_path / "a.jpg", RGB)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_image(path).shape == RGB.shape


def test_damaged_png_is_refused(tmp_path, write_picture):
    path = write_picture(tmp_path / "a.png", RGB)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="checksum"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "it is empty"), (b"GIF89a......", "starts with the bytes"), (None, "cannot be opened")],
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    for read in (read_info, read_image, read_valid, read_labels):
        with pytest.raises(DataError, match=message):
            read(path)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\xff\xd8\xff\xe0\0\x02abcd"])
def test_jpeg_that_ends_in_its_header(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_info, read_image):
        with pytest.raises(DataError, match=r"a\.jpg: .*(truncated|damaged)"):
            read(path)


def test_cmyk_jpeg_is_refused_with_advice(tmp_path, write_picture):
    path = write_picture(tmp_path / "a.jpg", RGB)
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 9] = 4  # the count of bands, behind marker, length, precision, height and width
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"4 bands \(CMYK\). Convert it to RGB"):
        read_image(path)


def test_png_without_a_header_chunk(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 0, b"IEND") + b"\xae\x42\x60\x82")
    with pytest.raises(DataError, match="damaged"):
        read_header(path, "png")


def test_png_of_a_colour_type_that_does_not_exist(tmp_path, write_png):
    path = write_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8), 0)
    data = bytearray(path.read_bytes())
    data[25] = 5  # signature 8, length and name 8, width and height 8, depth 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        read_info(path)


def test_pipe_in_place_of_a_file(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: cannot be opened \(it is not a regular file\)"):
        read_image(tmp_path / "a.png")


# Masks as labelling tools write them.


def test_one_bit_mask(tmp_path, write_png):
    # 0b10100000 is the row 1 0 1 0 0 0 0 0; OpenCV widens 1 to 255
    path = write_png(tmp_path / "a.png", np.uint8([[0b10100000]]), 0, depth=1)
    assert read_labels(path).tolist() == [[255, 0, 255, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        ([0, 0, 0, 128, 0, 0], [[0, 1], [1, 0]]),  # colours: the indices are the labels
        ([0, 0, 0, 255, 255, 255], [[0, 255], [255, 0]]),
        ([255, 255, 255, 0, 0, 0], [[255, 0], [0, 255]]),  # grey, stored the other way round: the grey counts
        ([0, 0, 0, 0, 0, 0], [[0, 1], [1, 0]]),  # colours that tell nothing apart
    ],
)
def test_palette_masks(tmp_path, write_png, palette, expected):
    path = write_png(tmp_path / "a.png", np.uint8([[0, 1], [1, 0]]), 3, chunks={b"PLTE": bytes(palette)})
    assert read_labels(path).tolist() == expected


def test_palette_image_becomes_rgb(tmp_path, write_png):
    path = write_png(tmp_path / "a.png", np.uint8([[0, 1]]), 3, chunks={b"PLTE": bytes([1, 2, 3, 40, 50, 60])})
    assert read_image(path).tolist() == [[[1, 2, 3], [40, 50, 60]]]
    assert read_info(path).bands == 3


def test_three_equal_bands_are_one_mask_and_alpha_is_left_out(tmp_path, write_picture):
    values = np.uint8([[0, 255], [255, 0]])
    assert read_labels(write_picture(tmp_path / "a.png", np.dstack([values] * 3))).tolist() == values.tolist()
    four = write_picture(tmp_path / "b.png", np.dstack([values] * 3 + [np.full((2, 2), 9, np.uint8)]))
    assert read_labels(four).tolist() == values.tolist()


def test_coloured_mask_is_refused(tmp_path, write_picture):
    with pytest.raises(DataError, match=r"a\.png: expected a mask of one band, but its 3 bands differ"):
        read_labels(write_picture(tmp_path / "a.png", RGB))


# What is absent.


def test_alpha_is_validity_and_no_band(tmp_path, write_png):
    grey_alpha = write_png(tmp_path / "a.png", np.uint8([[50, 255, 60, 0]]), 4)
    assert read_image(grey_alpha).tolist() == [[[50], [60]]]
    assert read_valid(grey_alpha).tolist() == [[True, False]]
    assert read_info(grey_alpha).bands == 1


def test_transparent_grey_is_nodata(tmp_path, write_png):
    path = write_png(tmp_path / "a.png", np.uint8([[7, 8]]), 0, chunks={b"tRNS": b"\0\x08"})
    assert read_info(path).nodata == 8
    assert read_valid(path).tolist() == [[True, False]]


def test_pictures_without_marks_are_valid_everywhere(tmp_path: Path, write_picture):
    assert read_valid(write_picture(tmp_path / "a.jpg", RGB)).all()
