"""The unit of accounts and the unit of the wire."""


def in_credits(millicredits: int) -> float:
    """The credits that callers read for millicredits that the server counts: 12500 is 12.5."""
    return millicredits / 1000
