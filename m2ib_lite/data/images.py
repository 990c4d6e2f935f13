"""Whatever a user calls an image, as the 8-bit RGB that a model's preprocessing expects."""

import errno
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_STRETCHED = 100  # times as long as wide
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")  # for EPS, Pillow would run a program


class Images(Sequence):
    """Images that are opened, by `open_image`, each time they are asked for: as many as one likes take no memory."""

    def __init__(self, sources):
        self.sources = sources

    def __len__(self):
        return len(self.sources)

    def __getitem__(self, i):
        return Images(self.sources[i]) if isinstance(i, slice) else open_image(self.sources[i])


def open_image(source):
    """A path, a file's bytes, a PIL image of any mode, an array or a tensor -> an RGB PIL image; transparency is laid over white.

    Arrays: (H, W) or (H, W, C), C of 1, 3 or 4; uint8, uint16, or floats in 0..1.  Tensors: the same, channels first.
    OSError for a file that is missing or not given, ValueError for what is no image, has no pixels, too many (a file's, as Pillow
    counts) or all in a line, TypeError for another type.
    """
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().numpy()
        source = np.moveaxis(source, 0, -1) if source.ndim == 3 else source
    is_array = hasattr(source, "__array__") and not isinstance(source, Image.Image)
    image = _from_array(np.asarray(source)) if is_array else decode(source)
    if not 0 < max(image.size) <= MOST_STRETCHED * min(image.size):  # a model's preprocessing would enlarge a line to gigabytes
        raise ValueError(f"an image of {image.width} x {image.height} pixels is a line or has none: crop it, or give another")
    if image.mode.startswith(("I", "F")):  # PIL would clip 16 bits to 255, not scale them
        values = np.asarray(image)
        if image.mode != "F":
            if not 0 <= values.min() <= values.max() <= 65535:
                raise ValueError(f"an image of mode {image.mode} holds 16 bits, 0 to 65535: rescale it")
            values = values.astype(np.uint16)
        image = _from_array(values)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def decode(source):
    """A path, a file's bytes or a PIL image as a PIL image of its own mode, its pixels in memory; errors as of `open_image`."""
    if not isinstance(source, Image.Image | str | Path | bytes):
        raise TypeError(f"an image is a path, a PIL image, an array, a tensor or bytes, not {type(source).__name__}")
    name = source if isinstance(source, str | Path) else "the image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                source.load()
                return source
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                image.load()
                return ImageOps.exif_transpose(image)  # a phone's photo as its viewer shows it
    except MemoryError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: save it smaller") from error
    except Exception as error:  # for a broken file Pillow raises SyntaxError, struct.error and more
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a broken file may send it to no place in it
            raise OSError(error.errno, f"{error.strerror}, give an image file that can be read", str(name)) from error
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name} is not an image that can be read ({reason}): convert it to PNG or JPEG") from error


def png(picture):
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _from_array(array):
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise ValueError(f"an image array is (H, W) or (H, W, C), C of 1, 3 or 4, and has pixels; this one is {array.shape}")
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
            raise ValueError("a float image holds finite numbers from 0 to 1: rescale it, or give uint8")
        array = np.rint(array * 255).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.uint16):  # of any byte order
        array = (array // 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"an image array is uint8, uint16 or float, not {array.dtype}: convert it")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)
