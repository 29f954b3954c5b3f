"""The program promoter-bert. app composes the commands of pipeline.cli and of predict, analysis and cluster here.

Entry points: app.main, and `python -m model.cli` for DeepSpeed's launcher.
"""
