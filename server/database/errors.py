"""What is wrong with a database as a whole."""


class UnusableDatabase(Exception):
    """The URL or what lies behind it is no database of this version; ``str(error)`` is fit for the operator."""
