"""The price of an order, in both dialects."""

from __future__ import annotations


def price(base_millicredits: int, pictures: int, steps: int, default_steps: int) -> int:
    """The price of an order in millicredits, rounded up.

    Args:
        base_millicredits: the price of one picture that is drawn in ``default_steps``.
    """
    return -(-base_millicredits * pictures * steps // default_steps)
