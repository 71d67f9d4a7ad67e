"""The error of a database that cannot be used at all."""


class UnusableDatabase(Exception):
    """No database of this version is at the URL; ``str(error)`` is fit for the operator."""
