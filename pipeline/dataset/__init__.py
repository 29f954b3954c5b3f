"""Build datasets of promoters from input files by the SQL in sql/, and query them.

Entry points: build.build_dataset, database.open_dataset, query.run_query, synthetic.generate, download.download.
"""
