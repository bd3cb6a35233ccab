"""PNG and JPEG files decoded inside an exported graph, so that a client sends what it has on its disk.

The signature `encoded` takes `image_bytes`, (n,) strings, each the content of a file; all pictures of a batch are of
one height and width. It exists where files of these kinds can hold the model's images: uint8 of 1, 3 or 4 bands.
Nothing is made up: a picture has as many channels as the model has bands, or an alpha channel beside 1 or 3, which is
left out as when tiles are read. The operations are TensorFlow's own, and what they refuse, they say.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lim_keras.export.signatures import PICTURES

_WITH_ALPHA = {1: (1, 2), 3: (3, 4), 4: (4,)}
_DEPTH_OFFSET = 24  # of the bits a sample, in the header that a PNG starts with


def decode_pictures(image_bytes: Any, bands: int) -> Any:
    """A graph from (n,) strings, n >= 1, to (n, height, width, bands) uint8.

    When it runs, it fails on an empty batch, on what is no PNG or JPEG or is damaged, on PNGs of 16 bits, on another
    number of channels, and on pictures of different sizes; the message says which and what was expected.
    """
    count = tf.size(image_bytes)
    say = tf.debugging.Assert(count > 0, [f"{PICTURES}: expected at least one PNG or JPEG file. Received: none"])
    with tf.control_dependencies([say]):
        first = _decode(image_bytes[0], bands)
    size = tf.shape(first)
    pictures = tf.TensorArray(tf.uint8, size=count, element_shape=(None, None, bands)).write(0, first)

    def read_next(index: Any, read: Any) -> tuple[Any, Any]:
        picture = _decode(image_bytes[index], bands)
        expected = [f"{PICTURES}: expected pictures of one height and width in a batch. Received, of number", index]
        sizes = ["height, width and bands", tf.shape(picture), "after", size, "of the first"]
        say = tf.debugging.Assert(tf.reduce_all(tf.shape(picture) == size), expected + sizes)
        with tf.control_dependencies([say]):
            return index + 1, read.write(index, picture)

    _, pictures = tf.while_loop(lambda index, _: index < count, read_next, (tf.constant(1), pictures))
    return pictures.stack()


def _decode(content: Any, bands: int) -> Any:
    """(height, width, bands) uint8 of one file."""
    with tf.control_dependencies(_check_file(content)):
        pixels = tf.io.decode_image(tf.identity(content), channels=0, expand_animations=False)
    channels = tf.shape(pixels)[-1]
    fits = tf.reduce_any([channels == allowed for allowed in _WITH_ALPHA[bands]])
    expected = f"{PICTURES}: expected a picture of {bands} bands"
    expected += ", alpha apart. Received channels:" if bands in (1, 3) else ". Received channels:"
    with tf.control_dependencies([tf.debugging.Assert(fits, [expected, channels])]):
        return tf.ensure_shape(pixels[..., :bands], (None, None, bands))


def _check_file(content: Any) -> list[Any]:
    """That it is a PNG of eight bits or less, or a JPEG: the decoder would take other kinds, and cut off bits."""
    png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    length = tf.strings.length(content)
    known = tf.debugging.Assert(
        jpeg | (png & (length > _DEPTH_OFFSET)),
        [f"{PICTURES}: expected the content of a PNG or JPEG file. Received bytes:", length],
    )
    with tf.control_dependencies([known]):
        header = tf.where(png, content, tf.constant(b"\0" * (_DEPTH_OFFSET + 1)))
    deep = tf.strings.substr(header, _DEPTH_OFFSET, 1) == b"\x10"
    eight = [f"{PICTURES}: expected 8 bits a channel. Received: a PNG of 16 bits, which would lose half of them"]
    return [known, tf.debugging.Assert(~deep, eight)]
