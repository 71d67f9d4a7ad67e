"""The price of an order, in both dialects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class Priced(ABC):
    """The fields of an order that an account pays for."""

    price_millicredits: ClassVar[int]
    """The price of one picture that is drawn in ``default_steps``."""
    default_steps: ClassVar[int]

    @abstractmethod
    def effort(self) -> tuple[int, int]:
        """The number of pictures that are paid for, and of steps in each."""

    def price(self, base_millicredits: int) -> int:
        """The price of the order in millicredits, rounded up.

        Args:
            base_millicredits: the price of one picture that is drawn in ``default_steps``.
        """
        pictures, steps = self.effort()
        # Rounded up in whole numbers: a float would round large prices.
        return -(-base_millicredits * pictures * steps // self.default_steps)
