"""How fast the stores and the pages are: `python -m bench`."""
