"""The data commands as plain functions: dataset (rows to dataset, SQL) and shards.

command_types decides which commands take `section.key=value` overrides; model.cli.app registers the functions.
"""
