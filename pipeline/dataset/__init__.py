"""Datasets of promoters: from files of rows to dataset.duckdb and Parquet, by the SQL in sql/; and queries.

Entry points: build.build_dataset, database.reading, query.run_query, synthetic.generate, download.download.
"""
