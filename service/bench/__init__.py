"""``modiste bench``: how fast, how much, and against what yardstick — all measured in one run on one machine."""
