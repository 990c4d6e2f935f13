"""The phantom chest behind the radiographs: anatomy that varies, seen from the front, the patient's left on the picture's right.

Elementwise + - * /, square roots and comparisons only: IEEE 754 rounds these alike, so the bytes are the same on every machine.
"""

from functools import cache

import numpy as np
from PIL import Image

SIZE = 112
_COLUMN, _ROW = np.arange(SIZE, dtype=np.float32)[None], np.arange(SIZE, dtype=np.float32)[:, None]
_GRAIN = np.random.default_rng(1).integers(-9, 10, size=(3, 2 * SIZE, 2 * SIZE)).sum(axis=0).astype(np.float32)
HILUM = 54  # its row in the template


def ramp(x):
    """0 below 0, 1 above 1, straight between."""
    x = np.maximum(x, 0)
    return np.minimum(x, 1, out=x)


def ellipse(x, y, rx, ry):
    """1 in the centre, 0 on the ellipse, negative outside it.  (1, W), (H, 1) -> (H, W)"""
    return (1 - (x / rx) ** 2) - (y / ry) ** 2


@cache
def _markings(variant):
    """Vessels that leave the hilum of a lung and fade out, 0..1.  (2 SIZE, SIZE): the hilum's row is SIZE, column 0 the midline."""
    rng, tile = np.random.default_rng(variant), np.zeros((2 * SIZE, SIZE), np.float32)
    for heading in range(-60, 61, 8):
        length, bend = int(rng.integers(32, 60)), int(rng.integers(-9, 10)) / 1200
        for step in range(length):
            x = 8 + step / 2 * (1 - abs(heading) / 110)
            y = SIZE + step / 2 * heading / 55 + bend * x * x + int(rng.integers(-4, 5)) / 10
            thick = 1 + (step < length // 2)
            tile[int(y) : int(y) + thick, int(x)] = 1 - step / length
    return tile


@cache
def _patches():
    """A coarse random grid blown up and smoothed by two box filters, in integers until the end.  (2 SIZE, 2 SIZE)"""
    fine = np.random.default_rng(2).integers(0, 256, size=(36, 36)).repeat(7, axis=0).repeat(7, axis=1)
    fine = sum(fine[k : 2 * SIZE + 7 + k] for k in range(7))
    fine = sum(fine[:, k : 2 * SIZE + k] for k in range(7))
    return (0.4 + fine[: 2 * SIZE] / (49 * 256)).astype(np.float32)


def _cut(tile, row, column):
    return tile[row : row + SIZE, column : column + SIZE]


class Chest:
    """One patient.  u, v: template coordinates of the columns (1, W), 0 on the midline, and the rows (H, 1).

    air: (H, W) 0..1, how much of a pixel is lung that nothing hides; density: (H, W), about 0..255, the film without
    findings; airless: the same were there no air in the lungs, the bones half as clear.
    """

    def __init__(self, rng):
        self.draws = rng.random(32).tolist()  # in one call, which is faster
        self.u = (_COLUMN - self.vary(53, 58)) / self.vary(0.93, 1.08)
        self.v = (_ROW - self.vary(54, 59)) / self.vary(0.93, 1.08) + 56
        self.heart_at, self.heart_radii = (self.vary(6, 9), self.vary(72, 75)), (self.vary(16, 19), self.vary(15, 18))
        self._outline()
        self.air = self.lung * (1 - self.heart()) * (1 - ramp(2 * ellipse(self.u - 8, self.v - 40, 6, 9)))
        tissue, bones = self._soft_tissue(), self._bones()
        self.airless = tissue + 0.5 * bones
        self.density = tissue + bones + self.air * (self._vessels() + (0.1 * self.v - 98))
        self.exposure = self.vary(0.85, 1.15), self.vary(-14, 14)
        self.grain = _cut(_GRAIN, int(self.vary(0, SIZE)), int(self.vary(0, SIZE)))

    def vary(self, low, high):
        """The next of this patient's random numbers, between low and high."""
        return low + (high - low) * self.draws.pop()

    def _outline(self):
        """The lungs' borders: rim, the distance to the chest wall; dome, the diaphragm's height; both lungs' soft masks."""
        t, v = np.abs(self.u), self.v
        down = ramp((v - self.vary(9, 14)) / 74)
        lateral = 42 * np.sqrt(1 - (1 - down) ** 2 * (1 - down))
        medial = 7 + 9 * (((1 - down) ** 2) ** 2) ** 2
        self.rim = lateral - t
        self.dome = self.vary(80, 87) + ramp(self.u) * self.vary(1, 5) + (t - 20) ** 2 * 0.024
        edge = np.minimum(np.minimum(self.rim, t - medial), self.dome - v)
        self.lung = ramp(edge * 0.5 + 0.3)

    def heart(self, grown=1.0):
        """The heart's soft mask, times its normal size."""
        (x, y), (rx, ry) = self.heart_at, self.heart_radii
        x, y = self.u - x - 12 * (grown - 1), self.v - y + 6 * (grown - 1)
        tilted = x - 0.3 * y  # the apex points down and to the patient's left
        below = 1 + 0.7 * ramp(y)  # it sits on the diaphragm
        return ramp(5 * (1 - (tilted / (rx * grown)) ** 2 - (y / (ry * grown * below)) ** 2))

    def _soft_tissue(self):
        u, v, t = self.u, self.v, np.abs(self.u)
        drop = np.maximum(v - self.vary(0, 5), 0) ** 2
        half = 15 + self.vary(37, 42) * drop / (drop + 60) + 0.0009 * (v - 50) ** 2  # neck, shoulders, flanks
        body = ramp((half - t) / 9)
        body = body * (2 - body)
        centre = ramp((17 - t) / 7) * ramp(v / 30)
        belly = ramp((v - self.dome) / 4) * (20 - 60 * ramp(2 * ellipse(u - 24, v - self.vary(94, 104), 9, self.vary(2.5, 6))))
        trachea = ramp((4 - np.abs(u + 1)) / 2) * ramp((48 - v) / 6)
        return body * (118 + v * 0.2 + self.vary(-8, 8)) + 28 * centre + belly - 24 * trachea

    def _bones(self):
        v, t = self.v, np.abs(self.u)
        cage = ramp((self.rim + 3) / 3) * ramp((102 - v) / 20)
        back = self._ribs(v + (0.16 * t - 0.013 * t * t), self.vary(8, 9.2), 0.3)
        front = self._ribs(v + (0.75 * t - 0.006 * t * t), self.vary(11, 12.5), 0.24) * ramp((t - 10) / 10)
        collar = ramp((2.9 - np.abs(v + (0.35 * t - 0.003 * t * t - self.vary(28, 32)))) / 1.6)
        collar = collar * (ramp((t - 3) / 2) * ramp((48 - t) / 3))
        spine = ramp((7 - t) / 2) * (ramp(np.abs((v / 7.5) % 1 - 0.5) * 9) * 6 + 9)
        blade = 16 * ramp(1.5 * ellipse(t - 44, v - 36, 7, 22))
        return cage * (22 * back + 12 * front) + 24 * collar + spine + blade

    def _ribs(self, course, spacing, width):
        phase = course * (1 / spacing) + self.vary(0, 1)
        return ramp((width - np.abs(phase - np.floor(phase) - 0.5)) * 7)

    def _vessels(self):
        return 26 * ramp(1.2 * ellipse(np.abs(self.u) - 13, self.v - HILUM, 7, 11)) + 44 * self._tree()

    def _tree(self):
        """Both lungs' vessels, each its own variant, laid out from the midline.  -> (H, W)"""
        top = SIZE - HILUM + int(self.vary(-3, 3))
        right, left = (_markings(int(self.vary(0, 12)))[top : top + SIZE] for _ in range(2))
        middle = int(np.abs(self.u[0]).argmin())
        return np.concatenate([right[:, middle - 1 :: -1], left[:, : SIZE - middle]], axis=1)

    def patches(self, rng):
        """An uneven texture of soft patches, about 0.5..1.3.  -> (H, W)"""
        return _cut(_patches(), *rng.integers(0, SIZE, size=2))

    def film(self, density):
        """A density exposed, with its grain.  -> an RGB image"""
        contrast, light = self.exposure
        grey = np.rint((density - 110) * contrast + (110 + light) + self.grain * 0.5)
        return Image.fromarray(np.minimum(np.maximum(grey, 0), 255).astype(np.uint8)).convert("RGB")
