"""The textured grounds of the scenes.  Each painter takes a generator and gives (SIZE, SIZE, 3) int16, about 0..255.

Integer arithmetic only, so that a scene has the same bytes on every machine.
"""

import numpy as np

SIZE = 112
_ROW, _COL = np.mgrid[:SIZE, :SIZE].astype(np.int16)
_GRAIN = np.random.default_rng(0).integers(-16, 17, size=(2 * SIZE, 2 * SIZE)).astype(np.int16)  # one tile, cut anew each time
_WAVE = np.rint(16 * np.sin(2 * np.pi * np.arange(64) / 64)).astype(np.int16)  # one period in 64 steps, -16..16


def _grain(rng):
    row, col = rng.integers(0, SIZE, size=2)
    return _GRAIN[row : row + SIZE, col : col + SIZE]


def _blobs(rng):
    """Soft random patches, -16..16: a coarse grid blown up and smoothed by two box filters."""
    coarse = rng.integers(-16, 17, size=(10, 10)).astype(np.int16)
    fine = np.repeat(np.repeat(coarse, 14, axis=0), 14, axis=1)
    fine = sum(fine[k : SIZE + k + 14] for k in range(0, 14, 2)) // 7
    return sum(fine[:SIZE, k : SIZE + k] for k in range(0, 14, 2)) // 7


def _wave(phase):
    return _WAVE[phase % 64]


def _tinted(rng, colour, texture):
    """A base colour that varies a little from scene to scene, plus a texture that all channels share."""
    tint = np.asarray(colour, np.int16) + rng.integers(-14, 15, size=3, dtype=np.int16)
    return tint + texture[..., None].astype(np.int16)


def grass(rng):
    blades = _GRAIN[:1, rng.integers(SIZE) :][:, :SIZE] + _wave(_ROW * 5 + _COL * 23) // 2
    return _tinted(rng, (88, 150, 62), blades + _grain(rng) // 2)


def sea(rng):
    shift = rng.integers(64)
    return _tinted(rng, (42, 112, 168), _wave(_ROW * 6 + _wave(_COL + shift) + shift) + _ROW // 6)


def sand(rng):
    shift = rng.integers(64)
    return _tinted(rng, (214, 186, 130), _grain(rng) // 2 + _wave(_COL * 2 + _ROW * 5 + shift) // 2)


def snow(rng):
    return _tinted(rng, (232, 238, 244), _blobs(rng) - _ROW // 8 + _grain(rng) // 4)


def night(rng):
    stars = (_grain(rng) == 16) & (_grain(rng) > 4)
    return _tinted(rng, (22, 24, 56), stars * 180 + _ROW // 4)


def brick(rng):
    course = _ROW // 10
    mortar = (_ROW % 10 == 0) | ((_COL + course % 2 * 11 + rng.integers(22)) % 22 == 0)
    return _tinted(rng, (158, 74, 58), _grain(rng) // 2 + mortar * 60)


def sky(rng):
    return _tinted(rng, (138, 190, 232), _blobs(rng) * 2 + _ROW // 5 - 10)


def wood(rng):
    plank = _ROW // 28
    seams = _ROW % 28 == 0
    grain = _wave(_ROW * 9 + _wave(_COL + plank * 17 + rng.integers(64)) // 2) // 2
    return _tinted(rng, (150, 104, 62), grain + plank % 2 * 10 - seams * 50 + _grain(rng) // 4)


PLACES = {  # the caption's words for each ground
    "on the grass": grass,
    "in the sea": sea,
    "on the sand": sand,
    "in the snow": snow,
    "in the night": night,
    "in front of a brick wall": brick,
    "in the sky": sky,
    "on the wood": wood,
}
