"""Which bases of a promoter matter to a model: in-silico saturation mutagenesis, its figures, tables and pages.

Entry points: saturation_mutagenesis.saturation_mutagenesis for Python, page.explain for one sequence,
files.explain_files for files of sequences or variants.
"""
