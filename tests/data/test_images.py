"""Every oddity an image file can have works or gives one error that names the file and the remedy."""

import numpy as np
import pytest
from devkits import encoded
from PIL import Image

from recamlib.data.images import exif_orientation, image_size, read_image, read_mask, write_mask
from recamlib.data.labels import VOC12
from recamlib.errors import DataError

ACROSS, DOWN = np.arange(40)[None] * 6, np.arange(30)[:, None] * 8
GRADIENT = np.stack(np.broadcast_arrays(ACROSS, DOWN, 100), -1).astype(np.uint8)
JPEG, TIFF = encoded(GRADIENT, "JPEG"), encoded(np.zeros((4, 4), np.float32), "TIFF")
MASK = np.array([[0, 1, 15], [255, 2, 0]], np.uint8)
CVAT = {(0, 0, 0): 0, (250, 50, 83): 1, (61, 61, 245): 2, (51, 221, 255): 3}
ODD = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]


def off(image, pixels=GRADIENT) -> float:
    """Return the mean absolute difference from some pixels ``(H, W, 3)``."""
    return float(np.abs(image.permute(1, 2, 0).numpy().astype(float) - pixels).mean())


def test_any_mode_becomes_rgb_and_sixteen_bits_keep_the_picture(tmp_path):
    grey = GRADIENT[..., :1]
    for picture, suffix, expected, most in (
        (Image.fromarray(GRADIENT), "jpg", GRADIENT, 2), (Image.fromarray(grey[..., 0]), "jpg", grey, 2),
        (Image.fromarray(GRADIENT).convert("CMYK"), "jpg", GRADIENT, 12),
        (Image.fromarray(GRADIENT).quantize(64), "png", GRADIENT, 20),
        (Image.fromarray(np.dstack([GRADIENT, np.full((30, 40), 7, np.uint8)])), "png", GRADIENT, 0),
        (Image.fromarray(grey[..., 0] > 100), "png", 255 * (grey > 100), 0),
        (Image.fromarray(GRADIENT), "bmp", GRADIENT, 0), (Image.fromarray(GRADIENT), "webp", GRADIENT, 6),
    ):  # fmt: skip
        path = tmp_path / f"a.{suffix}"
        picture.save(path, quality=95)
        image = read_image(path)
        assert image.is_contiguous() and image_size(path) == image.shape[1:] == (30, 40)
        assert off(image, expected) <= most
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png")[1].numpy(), deep >> 8)


def test_exif_rotation_is_applied_where_asked_for(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    path.write_bytes(encoded(GRADIENT, "JPEG", exif=exif, quality=95, subsampling=0))
    assert exif_orientation(path) == 6
    assert image_size(path, turned=True) == (40, 30) and image_size(path) == (30, 40)
    assert off(read_image(path, turned=True), np.rot90(GRADIENT, -1)) < 2 and off(read_image(path)) < 2


@pytest.mark.parametrize("content", [JPEG[:300], JPEG[:-40], b"", b"no image", b"\xff\xd8\xff\xe0xx", TIFF])
def test_cut_short_of_floats_or_no_image(tmp_path, content):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    for named in (path, tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(DataError, match=f"{named.name} "):
            read_image(named)


def painted(path, *, palette=None, mode="RGB", values=MASK):
    picture = Image.fromarray(values)
    picture.putpalette((VOC12.palette if palette is None else np.array(palette, np.uint8)).tobytes())
    picture.convert(mode).save(path)


def test_colours_of_the_data_set_are_read_in_any_form(tmp_path):
    path = tmp_path / "mask.png"
    write_mask(path, MASK, VOC12.palette)
    with Image.open(path) as image:
        assert image.mode == "P" and image.convert("RGB").getpixel((1, 0)) == tuple(VOC12.palette[1])
    assert np.array_equal(read_mask(path), MASK)  # indices are kept
    painted(path)
    assert np.array_equal(read_mask(path, VOC12.colours), MASK)
    picture = Image.open(path).quantize(8)  # what pngquant makes of it: other indices, the same colours
    picture.save(path)
    assert not np.array_equal(np.array(picture), MASK)
    assert np.array_equal(read_mask(path, VOC12.colours), MASK)
    painted(path, palette=[(51, 221, 255), (0, 0, 0), (250, 50, 83)], mode="P", values=MASK[:, :2] % 3)
    assert np.array_equal(read_mask(path, CVAT), [[3, 0], [3, 1]])
    painted(path, mode="RGBA")
    assert np.array_equal(read_mask(path, VOC12.colours), MASK)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "P"])
def test_grey_values_are_class_numbers(tmp_path, mode):
    values = MASK.astype(np.uint16) if mode == "I;16" else MASK
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette([v for v in range(256) for _ in range(3)])
    (picture if mode in ("I;16", "P") else picture.convert(mode)).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", CVAT), MASK)


@pytest.mark.parametrize("picture, message", [
    (lambda path: painted(path, palette=ODD, mode="P", values=MASK % 3), r"value 1 .*255, 0, 0.*labelmap"),
    (lambda path: painted(path, palette=ODD, values=MASK % 3), r"has the colour .*255, 0.*labelmap.txt"),
    (lambda path: Image.fromarray(GRADIENT).save(path), "more, no class's here .edges were smoothed"),
    (lambda path: Image.fromarray(MASK).save(path, "JPEG"), "is a JPEG, which changes pixel values"),
    (lambda path: Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(path), "partly transparent"),
])  # fmt: skip
def test_colours_that_are_no_class_are_refused_with_the_way_out(tmp_path, picture, message):
    picture(tmp_path / "mask.png")
    with pytest.raises(DataError, match=f"mask.png.*{message}"):
        read_mask(tmp_path / "mask.png", VOC12.colours)


def test_one_class_may_be_black_and_white_or_any_colour(tmp_path):
    path, shape = tmp_path / "mask.png", np.array([[0, 1], [1, 0]], np.uint8)
    Image.fromarray(shape.astype(bool)).save(path)
    one = {(0, 0, 0): 0, (128, 0, 0): 1, (224, 224, 192): 255}
    assert np.array_equal(read_mask(path, one), shape)
    with pytest.raises(DataError, match="stored in mode 1"):
        read_mask(path, CVAT)
    painted(path, palette=[(0, 0, 0), (255, 255, 255)], mode="P", values=shape)
    assert np.array_equal(read_mask(path, one), shape)
    painted(path, palette=[(255, 255, 255), (0, 0, 0)], mode="P", values=shape)
    with pytest.raises(DataError, match=r"value 0 has the colour \(255, 255, 255\)"):
        read_mask(path, one)
