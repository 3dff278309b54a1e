"""Any image file as RGB, 8 bits a channel; any mask file as label values; errors that name the file."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from recamlib.errors import DataError

#: Kinds of file that are decoded; Pillow knows others, one of which runs the program it finds in the file.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

#: Largest image that is decoded, in pixels (about 270 MB as RGB); 8,000 x 8,000 fits.
MAX_PIXELS = 89_000_000

# Pillow reports damage in all of these ways, depending on the format.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError,
    NotImplementedError, struct.error, zlib.error,
)  # fmt: skip


def inside(path: Path, root: Path) -> Path:
    """Return `path` unless it is a link that leads out of `root`: a data set names files of its own only.

    Raises
    ------
    DataError
        Naming the link. Folders may be links: where a data set lies is its owner's choice.
    """
    leaves = path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve())
    if leaves and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{path} is a link that leads out of {root}; put the file itself there")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong inside the block becomes a `DataError` naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=FORMATS)
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise DataError(f"{path} has {size} pixels, more than {MAX_PIXELS:,}; store it smaller")
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} is missing; fetch the data set again or take the id off the list") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, an image file was expected") from None
    except PermissionError:
        raise DataError(f"{path} may not be read; change its permissions") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path} has more than {MAX_PIXELS:,} pixels; store it smaller") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is not a readable image; fetch it again or convert it to JPEG") from None
    except (*_DAMAGE, MemoryError) as error:
        raise DataError(f"{path} does not decode ({error}); it is damaged, fetch it again") from None


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    """Return the pixels as they are stored, shape ``(H, W, 3)``, uint8."""
    if image.mode == "RGB":
        return np.array(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit values at 255; the high byte keeps the picture.
        grey = (np.clip(np.array(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{path} holds floating-point pixels; convert it to 8 bits a channel")
    return np.array(image.convert("RGB"))


def read_image(path: Path) -> torch.Tensor:
    """Decode an image file.

    Grey and palette images become RGB, CMYK is converted, 16-bit values keep their high byte, transparency
    is dropped, of an animation the first frame is taken. Pixels stay as stored: an EXIF rotation is *not*
    applied, because the masks and labels of VOC and COCO were drawn on the stored pixels and the authors'
    code reads them so.

    Returns
    -------
    Shape ``(3, H, W)``, uint8.

    Raises
    ------
    DataError
        If the file is missing, damaged, cut short, larger than `MAX_PIXELS` or no image.
    """
    with _opened(Path(path)) as image:
        pixels = _to_rgb(image, path)  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: Path) -> tuple[int, int]:
    """Return ``(H, W)`` of an image file from its header alone."""
    with _opened(Path(path)) as image:
        return image.height, image.width


def exif_rotation(path: Path) -> bool:
    """Say whether a file asks viewers to turn or mirror it (EXIF orientation other than 1)."""
    with _opened(Path(path)) as image:
        return image.getexif().get(0x0112, 1) not in (0, 1)


def read_mask(path: Path) -> np.ndarray:
    """Read a mask stored as palette or grey PNG.

    Returns
    -------
    Label values, shape ``(H, W)``, uint8: palette indices, not colours.

    Raises
    ------
    DataError
        If the file is missing or damaged, or holds colours instead of indices.
    """
    with _opened(Path(path)) as image:
        if image.mode not in ("P", "L"):
            raise DataError(
                f"{path} is stored in mode {image.mode}; convert it to a PNG of class indices (mode P or L)"
            )
        return np.array(image)


def read_grey(path: Path) -> np.ndarray:
    """Read a picture of one quantity, stored as grey values or as equal colours.

    16-bit values keep their high byte, of black and white the white becomes 255.

    Returns
    -------
    Shape ``(H, W)``, uint8.

    Raises
    ------
    DataError
        If the file is missing or damaged, or has a palette, as masks do: an index is no quantity.
    """
    with _opened(Path(path)) as image:
        if image.mode in ("P", "PA"):
            raise DataError(f"{path} has a palette, as masks of classes do; grey values were expected")
        if image.mode == "L":
            return np.array(image)
        if image.mode in ("1", "LA"):
            return np.array(image.convert("L"))
        return np.array(Image.fromarray(_to_rgb(image, path)).convert("L"))


def write_mask(path: Path, mask: np.ndarray, palette: np.ndarray) -> None:
    """Write label values as a palette PNG.

    Parameters
    ----------
    path
        File to write.
    mask
        Shape ``(H, W)``, uint8.
    palette
        Colours by value, shape ``(256, 3)``, uint8.
    """
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path, format="PNG")


def labels_to_png(labels: np.ndarray) -> np.ndarray:
    """Return a label map ``(H, W)``, uint8, as the bytes of a PNG ``(N,)``, about a hundredth of its size.

    Examples
    --------
    >>> labels_from_png(labels_to_png(np.array([[0, 255]], dtype=np.uint8)))
    array([[  0, 255]], dtype=uint8)
    """
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, format="PNG")
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def labels_from_png(png: np.ndarray) -> np.ndarray:
    """Return the label map ``(H, W)``, uint8, of the bytes of a PNG ``(N,)``."""
    with Image.open(io.BytesIO(np.asarray(png).tobytes()), formats=["PNG"]) as image:
        return np.array(image)
