"""How each of the small networks is trained."""
