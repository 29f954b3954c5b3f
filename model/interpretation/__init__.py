"""Which bases of a promoter matter to a model: in-silico saturation mutagenesis, its plot and its page.

Entry points: saturation_mutagenesis.saturation_mutagenesis for Python, page.explain for files.
"""
