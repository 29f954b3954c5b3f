"""Benchmarks of the project and other libraries. Run in the project folder: python -m bench.FOLDER.NAME --help."""
