"""Measurements of the project beside its peers. Run from the checkout's root: python -m bench.FOLDER.NAME --help."""
