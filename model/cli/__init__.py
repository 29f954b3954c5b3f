"""Command line of promoter-bert. app.py composes the commands of pipeline.cli and those of this package.

Entry points: app.main, and `python -m model.cli` for DeepSpeed's launcher.
"""
