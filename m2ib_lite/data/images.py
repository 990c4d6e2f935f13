"""Whatever a user calls an image, as the 8-bit RGB that a model's preprocessing expects."""

import errno
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

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
    """A path, a PIL image of any mode, or an array -> an RGB PIL image; transparency is laid over white.

    Arrays: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8, uint16, or floats in 0..1.
    FileNotFoundError for a missing file, OSError for one that the system does not give, ValueError for what is no image, has no
    pixels, too many (a file's, as Pillow counts) or all in a line, TypeError for another type.
    """
    if isinstance(source, str | Path):
        image = _read(Path(source))
    elif isinstance(source, Image.Image):
        image = _decode(source)
    elif hasattr(source, "__array__"):
        image = _from_array(np.asarray(source))
    else:
        raise TypeError(f"an image is a path, a PIL image or an array, not {type(source).__name__}")
    if 0 in image.size:
        raise ValueError(f"an image of {image.width} x {image.height} pixels has nothing to explain: give one with pixels")
    if max(image.size) > MOST_STRETCHED * min(image.size):  # a model's preprocessing would enlarge it to gigabytes
        raise ValueError(f"an image of {image.width} x {image.height} pixels is a line: crop it")
    return _to_rgb(image)


def _read(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return ImageOps.exif_transpose(image)  # a phone's photo as its viewer shows it
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no image file {path}: give the path of an existing one") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: save it smaller") from error
    except MemoryError:
        raise
    except Exception as error:  # for a broken file Pillow raises SyntaxError, struct.error and more
        if _is_the_systems(error):
            remedy = "is a folder: give an image file" if path.is_dir() else f"{error.strerror}: mend that"
            raise OSError(error.errno, remedy, str(path)) from error
        raise ValueError(f"{path} is not an image that can be read ({error}): convert it to PNG or JPEG") from error


def _is_the_systems(error):
    """Whether the system refused a file, which says nothing of what the file holds."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)  # a broken file may send Pillow to no place in it


def _decode(image):
    """A PIL image whose file may not have been read yet."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above
        if _is_the_systems(error):
            raise
        raise ValueError(f"the PIL image cannot be decoded ({error}): open a whole file") from error
    return image


def _from_array(array):
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ValueError(f"an image array is (H, W), or (H, W, C) with C of 1, 3 or 4; this one is {array.shape}")
    if array.size == 0:
        raise ValueError(f"an image array of shape {array.shape} has no pixels: give one that has")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("a float image holds finite numbers from 0 to 1: rescale it, or give uint8")
        array = np.rint(array * 255).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.uint16):  # of any byte order
        array = (array // 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"an image array is uint8, uint16 or float, not {array.dtype}: convert it")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)


def _to_rgb(image):
    if image.mode.startswith(("I", "F")):  # PIL would clip 16 bits to 255, not scale them
        values = np.asarray(image)
        if image.mode.startswith("I") and not 0 <= values.min() <= values.max() <= 65535:
            raise ValueError(f"an image of mode {image.mode} holds 16 bits, 0 to 65535: rescale it")
        return _from_array(values if image.mode == "F" else values.astype(np.uint16)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("RGB")
