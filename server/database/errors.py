"""What is wrong with a database as a whole."""


class UnusableDatabase(Exception):
    """No database of this version is at the URL; ``str(error)`` is fit for the operator."""
