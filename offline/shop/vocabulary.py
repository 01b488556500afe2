"""What the sample shop's articles are called: styles, categories, colours, patterns, and how each looks."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

GENDERS = ("women", "men")

COLOURS: dict[str, RGB] = {
    "black": (32, 32, 36),
    "white": (244, 244, 240),
    "ivory": (236, 226, 202),
    "grey": (142, 144, 148),
    "camel": (190, 148, 98),
    "brown": (104, 70, 46),
    "navy": (34, 48, 92),
    "blue": (66, 114, 190),
    "sky": (150, 196, 228),
    "green": (52, 116, 78),
    "sage": (158, 176, 144),
    "mustard": (212, 164, 48),
    "orange": (226, 122, 52),
    "red": (186, 40, 46),
    "pink": (232, 150, 176),
    "purple": (116, 70, 140),
}
PATTERNS = ("solid", "striped", "dotted", "checked", "floral", "animal", "graphic", "block")


@dataclass(frozen=True)
class Style:
    """A style group: what its articles mostly have. ``price`` multiplies the category's."""

    brands: tuple[str, str, str]
    colours: tuple[str, str, str, str]
    patterns: tuple[str, str]
    words: tuple[str, str, str, str, str, str]
    price: float
    occasion: str


# The order is the ring along which tastes drift.
STYLES: tuple[Style, ...] = (
    Style(("Nordan", "Plain Works", "Linje"), ("black", "white", "grey", "ivory"), ("solid", "block"),
          ("minimal", "clean", "boxy", "tailored", "architectural", "pared-back"), 1.4, "office"),
    Style(("Ashworth", "Calder & Son", "Maison Berry"), ("navy", "camel", "white", "brown"), ("checked", "solid"),
          ("classic", "timeless", "pressed", "buttoned", "heritage", "lined"), 1.7, "office"),
    Style(("Varsity Row", "Kingsbridge", "Oxley"), ("navy", "red", "white", "green"), ("striped", "checked"),
          ("preppy", "collegiate", "crested", "pleated", "ribbed", "varsity"), 1.2, "college"),
    Style(("Harbour", "Salt & Tide", "Brise"), ("sky", "navy", "white", "ivory"), ("striped", "solid"),
          ("coastal", "breton", "breezy", "nautical", "washed", "easy"), 1.0, "holiday"),
    Style(("Wildgrass", "Sol y Luna", "Marrakesh Market"), ("mustard", "brown", "ivory", "orange"),
          ("floral", "animal"), ("boho", "fringed", "embroidered", "flowing", "crochet", "tiered"), 1.0, "festival"),
    Style(("Rosalie", "Petit Jardin", "Amour"), ("pink", "ivory", "sky", "sage"), ("floral", "dotted"),
          ("romantic", "lace", "ruffled", "puffed", "delicate", "draped"), 1.1, "wedding"),
    Style(("Second Act", "Mabel's", "Fifty Seven"), ("mustard", "green", "red", "brown"), ("dotted", "checked"),
          ("vintage", "retro", "swing", "pin-up", "corduroy", "scalloped"), 0.9, "weekend"),
    Style(("Lumen", "Soirée", "Oro"), ("black", "purple", "red", "camel"), ("animal", "solid"),
          ("glam", "sequinned", "satin", "plunging", "metallic", "velvet"), 1.8, "party"),
    Style(("Riot House", "Nevermind", "Black Candle"), ("black", "red", "purple", "grey"), ("graphic", "animal"),
          ("punk", "studded", "distressed", "leather-look", "zipped", "grunge"), 0.9, "concert"),
    Style(("Block 9", "Overpass", "Tag Team"), ("grey", "black", "orange", "green"), ("graphic", "block"),
          ("street", "oversized", "baggy", "cargo", "logo", "drop-shoulder"), 0.8, "city"),
    Style(("Pace", "Velo", "Kinetic"), ("blue", "orange", "black", "sky"), ("block", "striped"),
          ("sporty", "stretch", "breathable", "seamless", "quick-dry", "racerback"), 0.9, "sport"),
    Style(("Trailhead", "Fell & Ford", "Timberline"), ("green", "brown", "sage", "mustard"), ("solid", "graphic"),
          ("outdoor", "rugged", "quilted", "waterproof", "fleece", "utility"), 1.2, "hiking"),
)  # fmt: skip


@dataclass(frozen=True)
class Category:
    """A kind of article. ``genders``: indices into GENDERS; ``season``: when it sells best, or None."""

    name: str
    silhouette: str
    price: float
    season: str | None
    fibres: tuple[str, ...]
    genders: tuple[int, ...] = (0, 1)


CATEGORIES: tuple[Category, ...] = (
    Category("dress", "dress", 45.0, "summer", ("viscose", "cotton", "polyester"), (0,)),
    Category("skirt", "skirt", 32.0, "summer", ("cotton", "polyester", "viscose"), (0,)),
    Category("blouse", "shirt", 34.0, None, ("viscose", "silk", "cotton"), (0,)),
    Category("shirt", "shirt", 36.0, None, ("cotton", "linen"), (1,)),
    Category("t-shirt", "tee", 16.0, "summer", ("cotton", "elastane")),
    Category("sweater", "sweater", 42.0, "winter", ("wool", "acrylic", "cotton")),
    Category("cardigan", "cardigan", 46.0, "winter", ("wool", "acrylic", "cotton")),
    Category("hoodie", "hoodie", 38.0, None, ("cotton", "polyester")),
    Category("jacket", "jacket", 75.0, None, ("polyester", "cotton", "polyamide")),
    Category("coat", "coat", 120.0, "winter", ("wool", "polyester", "polyamide")),
    Category("blazer", "jacket", 85.0, None, ("polyester", "wool", "viscose")),
    Category("trousers", "trousers", 42.0, None, ("cotton", "polyester", "elastane")),
    Category("jeans", "trousers", 52.0, None, ("cotton", "elastane")),
    Category("shorts", "shorts", 26.0, "summer", ("cotton", "linen", "polyester")),
    Category("leggings", "trousers", 22.0, None, ("polyamide", "elastane"), (0,)),
    Category("swimwear", "swimwear", 28.0, "summer", ("polyamide", "elastane")),
    Category("sneakers", "shoe", 62.0, None, ("polyester", "rubber")),
    Category("boots", "boot", 95.0, "winter", ("leather", "rubber")),
    Category("sandals", "sandal", 40.0, "summer", ("leather", "rubber")),
    Category("bag", "bag", 48.0, None, ("leather", "polyester", "cotton")),
    Category("scarf", "scarf", 20.0, "winter", ("wool", "acrylic", "viscose")),
    Category("hat", "hat", 18.0, "winter", ("wool", "acrylic", "cotton")),
)
