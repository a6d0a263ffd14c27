"""A number and what it counts, as a person writes it."""

from __future__ import annotations


def count_of(n: int, noun: str, plural: str = "") -> str:
    """ "1 image", "1,234 images"; `plural` is for what neither -s nor, after an s, -es makes.

    >>> count_of(1, "class"), count_of(2_000, "class"), count_of(0, "val image")
    ('1 class', '2,000 classes', '0 val images')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + ('es' if noun.endswith('s') else 's')}"
