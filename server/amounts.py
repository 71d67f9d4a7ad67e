"""The unit of accounts and the unit of the wire."""


def in_credits(millicredits: int) -> float:
    """Millicredits, which are counted, as credits, which are told: 12500 is 12.5."""
    return millicredits / 1000
