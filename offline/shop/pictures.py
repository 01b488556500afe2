"""Thumbnails of the sample shop's articles: the category's silhouette in the article's colour and pattern.

Pictures are RGB, 108 wide and 156 high, drawn from masks that are made once: float32 (156, 108) in 0 … 1.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from offline.shop.catalogue import COLOUR_NAMES, Catalogue
from offline.shop.vocabulary import CATEGORIES, COLOURS, PATTERNS

WIDTH, HEIGHT = 108, 156
Mask = NDArray[np.float32]
Points = list[tuple[float, float]]

_SHOE: Points = [(14, 92), (40, 78), (58, 92), (92, 104), (98, 118), (14, 118)]
_BODICE: Points = [(36, 22), (47, 27), (61, 27), (72, 22), (80, 40), (71, 74), (37, 74), (28, 40)]
_LEGS: Points = [(34, 18), (74, 18), (82, 142), (60, 142), (54, 50), (48, 142), (26, 142)]
_TORSO: Points = [(34, 30), (46, 35), (62, 35), (74, 30), (76, 112), (32, 112)]
_LONG_SLEEVES: list[Points] = [[(35, 30), (16, 100), (27, 104), (38, 60)], [(73, 30), (92, 100), (81, 104), (70, 60)]]
_SHORT_SLEEVES: list[Points] = [[(35, 30), (14, 52), (26, 62), (38, 48)], [(73, 30), (94, 52), (82, 62), (70, 48)]]
_HOOD: Points = [(40, 36), (42, 14), (54, 9), (66, 14), (68, 36)]

_SILHOUETTES: dict[str, list[Points]] = {
    "dress": [_BODICE, [(38, 72), (70, 72), (92, 142), (16, 142)]],
    "skirt": [[(38, 36), (70, 36), (90, 118), (18, 118)]],
    "shirt": [_TORSO, *_LONG_SLEEVES, [(46, 35), (54, 24), (62, 35)]],
    "tee": [_TORSO, *_SHORT_SLEEVES],
    "sweater": [_TORSO, [(36, 28), (10, 96), (24, 104), (40, 66)], [(72, 28), (98, 96), (84, 104), (68, 66)]],
    "cardigan": [[(34, 28), (52, 60), (52, 120), (30, 120)], [(74, 28), (56, 60), (56, 120), (78, 120)],
                 *_LONG_SLEEVES],
    "hoodie": [_TORSO, _HOOD, *_LONG_SLEEVES],
    "jacket": [[(32, 28), (54, 50), (76, 28), (80, 100), (28, 100)], *_LONG_SLEEVES],
    "coat": [[(32, 22), (54, 44), (76, 22), (86, 144), (22, 144)], [(33, 24), (12, 98), (25, 103), (38, 58)],
             [(75, 24), (96, 98), (83, 103), (70, 58)]],
    "trousers": [_LEGS],
    "shorts": [[(32, 42), (76, 42), (84, 100), (58, 100), (54, 72), (50, 100), (24, 100)]],
    "swimwear": [[(40, 30), (46, 52), (62, 52), (68, 30), (72, 70), (62, 112), (54, 120), (46, 112), (36, 70)]],
    "shoe": [_SHOE],
    "boot": [[(32, 28), (62, 28), (62, 92), (92, 106), (96, 124), (32, 124)]],
    "sandal": [[(12, 110), (96, 110), (96, 118), (12, 118)], [(28, 110), (44, 78), (54, 110)],
               [(64, 110), (76, 88), (86, 110)]],
    "bag": [[(20, 62), (88, 62), (96, 126), (12, 126)],
            [(36, 62), (40, 34), (68, 34), (72, 62), (66, 62), (63, 40), (45, 40), (42, 62)]],
    "scarf": [[(42, 14), (66, 14), (64, 144), (44, 144)], [(36, 34), (74, 26), (74, 46), (36, 54)]],
    "hat": [[(30, 84), (36, 50), (54, 40), (72, 50), (78, 84)], [(12, 84), (96, 84), (92, 96), (16, 96)]],
}  # fmt: skip


@cache
def silhouette(name: str) -> Mask:
    """Where the fabric is: float32 (156, 108), soft at the edge."""
    scale = 3
    canvas = Image.new("L", (WIDTH * scale, HEIGHT * scale))
    draw = ImageDraw.Draw(canvas)
    for points in _SILHOUETTES[name]:
        draw.polygon([(x * scale, y * scale) for x, y in points], fill=255)
    soft = canvas.filter(ImageFilter.GaussianBlur(1.5)).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.asarray(soft, dtype=np.float32) / 255.0


def _flowers(x: Mask, y: Mask) -> NDArray[np.bool_]:
    angle, radius = np.arctan2(y % 30 - 15, x % 30 - 15), np.hypot(x % 30 - 15, y % 30 - 15)
    petals: NDArray[np.bool_] = radius < 7 + 4 * np.cos(5 * angle)
    return petals


def _spots(x: Mask, _: Mask) -> NDArray[np.bool_]:
    """Smoothed noise cut at a level; its own generator, so that the print is the same in every shop."""
    height, width = x.shape
    noise = np.random.default_rng(6).integers(0, 256, (height // 6, width // 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)) > 140


_PRINTS: dict[str, Callable[[Mask, Mask], NDArray[Any]]] = {
    "solid": lambda x, _: np.zeros_like(x),
    "striped": lambda _, y: y % 14 < 6,
    "dotted": lambda x, y: (x % 16 - 8) ** 2 + (y % 16 - 8) ** 2 < 16,
    "checked": lambda x, y: (x % 24 < 8) * 0.5 + (y % 24 < 8) * 0.5,
    "floral": _flowers,
    "animal": _spots,
    "graphic": lambda x, y: np.abs(x % WIDTH - 54) + np.abs(y % HEIGHT - 70) < 22,
    "block": lambda _, y: y % HEIGHT > 78,
}


@cache
def pattern(name: str) -> Mask:
    """Where the second colour is: float32 (312, 216), twice a picture's size, so that it can be laid at any offset."""
    y, x = np.mgrid[0 : 2 * HEIGHT, 0 : 2 * WIDTH].astype(np.float32)
    return _PRINTS[name](x, y).astype(np.float32)


class Painter:
    """Draws the pictures of one catalogue; the same article always looks the same."""

    def __init__(self, catalogue: Catalogue, seed: int):
        self._catalogue, self._seed = catalogue, seed
        light = np.linspace(1.06, 0.88, HEIGHT, dtype=np.float32)[:, None]
        self._light = light * np.linspace(0.94, 1.05, WIDTH, dtype=np.float32)  # (156, 108)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """The picture of one article, uint8 (156, 108, 3)."""
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, 4, index]))
        name = PATTERNS[self._catalogue.pattern[index]]
        fabric = np.asarray(COLOURS[COLOUR_NAMES[self._catalogue.colour[index]]], dtype=np.float32)
        fabric = np.clip(fabric + rng.normal(0.0, 8.0, 3).astype(np.float32), 0, 255)
        # A print in the other direction of brightness is seen on any fabric.
        contrast = fabric * 0.35 if fabric.mean() > 128 else 255 - (255 - fabric) * 0.45
        top, left = (0, 0) if name in ("graphic", "block") else rng.integers(0, (HEIGHT, WIDTH))
        second = pattern(name)[top : top + HEIGHT, left : left + WIDTH, None]
        cloth = (fabric + second * (contrast - fabric)) * self._light[..., None]
        background = np.float32(250 - 14 * rng.random())
        mask = self._mask(index, rng)[..., None]
        return np.clip(background + mask * (cloth - background), 0, 255).astype(np.uint8)

    def jpeg(self, index: int) -> bytes:
        """The same as the bytes of a JPEG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels(index)).save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

    def _mask(self, index: int, rng: np.random.Generator) -> Mask:
        mask = silhouette(CATEGORIES[self._catalogue.category[index]].silhouette)
        if rng.random() < 0.5:
            mask = mask[:, ::-1]
        return np.roll(mask, tuple(rng.integers(-4, 5, 2)), axis=(0, 1))
