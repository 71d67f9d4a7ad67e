"""File formats of weights by their suffixes: which ones can run code, and what is done about it."""

from __future__ import annotations

CONVERTED_PICKLES = (".bin",)
"""Suffixes of the pickles that a pull converts into safetensors."""

VERIFIED_PICKLES = (".pt", ".pth")
"""Suffixes of the pickles that a pull keeps once it is seen that they hold nothing but tensors."""

REFUSED_PICKLES = (".ckpt", ".pickle", ".pkl")
"""Suffixes of the pickles that even a pull of what weights.yaml names refuses."""

PICKLES = (*CONVERTED_PICKLES, *VERIFIED_PICKLES, *REFUSED_PICKLES)
"""Suffixes of all formats that can run code when they are opened; a running server loads none of them."""

NO_PICKLES = "is a pickle, which can run code when it is opened; give a .safetensors"
"""The error text for a pickle, to follow the name of the file."""
