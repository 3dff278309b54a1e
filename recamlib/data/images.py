"""Any image file as RGB, 8 bits a channel; any mask file as label values; errors that name the file."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from recamlib.errors import DataError

# Kinds of file that are decoded; Pillow knows others, one of which runs the program it finds in the file.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
Colour = tuple[int, int, int]
Colours = Mapping[Colour, int]
# what went wrong, the most special first
_REASONS: dict[type[Exception] | tuple, str] = {
    FileNotFoundError: "is missing; put it there or take the id off the list",
    (IsADirectoryError, PermissionError): "cannot be opened ({0.strerror}); name an image file",
    Image.DecompressionBombError: "has far more pixels than a photograph; store it smaller",
    UnidentifiedImageError: "is not a readable image; copy it again or convert it to JPEG",
    Exception: "does not decode ({0}); it is damaged, copy it again",
}
_TABLE = "list name:red,green,blue of each class in labelmap.txt, or store class numbers as grey values"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong inside the block becomes a `DataError` naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=FORMATS)
        with opened as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow reports damage in any number of ways, depending on the format
        reason = next(text for kind, text in _REASONS.items() if isinstance(error, kind))
        raise DataError(f"{path} {reason.format(error)}") from None


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    """Return the pixels of an image, shape ``(H, W, 3)``, uint8."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit values at 255; the high byte keeps the picture.
        grey = (np.clip(np.array(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{path} holds floating-point pixels; convert it to 8 bits a channel")
    return np.array(image.convert("RGB"))


def read_image(path: Path, *, turned: bool = False) -> torch.Tensor:
    """Decode an image file ``(3, H, W)``, uint8: of any mode, without transparency, the first frame.

    With `turned`, pixels are turned and mirrored as an EXIF tag of the file asks, which is how programs show
    it; without, they stay as they are stored, which is how the masks of COCO were drawn.
    """
    with _opened(Path(path)) as image:
        pixels = _to_rgb(ImageOps.exif_transpose(image) if turned else image, path)  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: Path, *, turned: bool = False) -> tuple[int, int]:
    """Return ``(H, W)`` of an image file from its header alone; see `read_image` for `turned`."""
    with _opened(Path(path)) as image:
        swapped = turned and image.getexif().get(0x0112) in (5, 6, 7, 8)
        return (image.width, image.height) if swapped else (image.height, image.width)


def exif_orientation(path: Path) -> int:
    """Return how viewers turn or mirror a file: 1 not at all, 3 by half a turn, 5 to 8 so that sides swap."""
    with _opened(Path(path)) as image:
        value = image.getexif().get(0x0112, 1)
        return value if value in range(1, 9) else 1


def read_mask(path: Path, colours: Colours | None = None) -> np.ndarray:
    """Read a mask ``(H, W)``: label values from the numbers, or from the colours, that are stored.

    With `colours`, the value of each colour of the data set, an RGB picture is read, and where the colours of
    a palette stand for other values than its indices, the colours are right. Without, indices are taken as
    they are, and colours are refused.
    """
    with _opened(Path(path)) as image:
        if image.format == "JPEG":
            raise DataError(f"{path} is a JPEG, which changes pixel values; store masks as PNG")
        if image.mode == "L" or image.mode.startswith("I"):
            return np.array(image)
        if image.mode == "1" and (colours is None or len({*colours.values()} - {0, 255}) == 1):
            return np.array(image).astype(np.uint8)
        if image.mode == "P":
            indices, palette = np.array(image), np.array(image.getpalette("RGB")).reshape(-1, 3)
            return indices if colours is None else _by_palette(indices, palette, path, colours)
        if colours is None or image.mode not in ("RGB", "RGBA"):
            raise DataError(f"{path} is stored in mode {image.mode}; convert it to a PNG of class numbers")
        if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
            raise DataError(f"{path} is partly transparent, which means no class; put black behind it")
        return _by_colour(np.array(image.convert("RGB")), path, colours)


def _by_palette(indices: np.ndarray, palette: np.ndarray, path: Path, colours: Colours) -> np.ndarray:
    """Return label values ``(H, W)`` of a palette picture."""
    shown = {int(v): tuple(palette[v].tolist()) for v in np.unique(indices) if v < len(palette)}
    own = all(colours.get(colour) == v or v == 255 for v, colour in shown.items())
    if own or all(colour == (v, v, v) for v, colour in shown.items()):  # grey values
        return indices
    classes = {*colours.values()} - {0, 255}
    if classes == {1} and set(shown) <= {0, 1} and shown.get(0, (0, 0, 0)) == (0, 0, 0):
        return indices  # one class, in any colour on black
    table = np.zeros(256, np.uint8)
    for value, colour in shown.items():
        if colour not in colours and value != 255:
            raise DataError(f"{path}: value {value} has the colour {colour}, no class's here; {_TABLE}")
        table[value] = colours.get(colour, 255)
    return table[indices]


def _by_colour(pixels: np.ndarray, path: Path, colours: Colours) -> np.ndarray:
    """Return label values ``(H, W)`` of an RGB picture ``(H, W, 3)``."""
    codes = pixels.astype(np.int64) @ (65536, 256, 1)  # (H, W)
    found, where = np.unique(codes, return_inverse=True)
    listed = [(code >> 16, code >> 8 & 255, code & 255) for code in found.tolist()]
    unknown = [colour for colour in listed if colour not in colours]
    if unknown and all(red == green == blue for red, green, blue in listed):
        return pixels[:, :, 0]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        smooth = " (edges were smoothed: save it without)" if len(unknown) > 20 else ""
        raise DataError(f"{path} has the colour {unknown[0]}{more}, no class's here{smooth}; {_TABLE}")
    return np.array([colours[colour] for colour in listed], np.uint8)[where].reshape(codes.shape)


def read_grey(path: Path) -> np.ndarray:
    """Read a picture of one quantity ``(H, W)``, uint8; a palette is refused: an index is no quantity."""
    with _opened(Path(path)) as image:
        if image.mode in ("P", "PA"):
            raise DataError(f"{path} has a palette, as masks of classes do; grey values were expected")
        if image.mode in ("L", "1", "LA"):
            return np.array(image.convert("L"))
        return np.array(Image.fromarray(_to_rgb(image, path)).convert("L"))


def write_mask(path: Path, mask: np.ndarray, palette: np.ndarray) -> None:
    """Write label values ``(H, W)``, uint8, as a PNG with the colours by value ``(256, 3)``, uint8."""
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path, format="PNG")


def labels_to_png(labels: np.ndarray) -> np.ndarray:
    """Return a label map ``(H, W)``, uint8, as the bytes of a PNG ``(N,)``."""
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, format="PNG")
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def labels_from_png(png: np.ndarray) -> np.ndarray:
    """Return the label map ``(H, W)``, uint8, of the bytes of a PNG ``(N,)``."""
    with Image.open(io.BytesIO(np.asarray(png).tobytes()), formats=["PNG"]) as image:
        return np.array(image)
