"""Further columns of the rows of a build: several labels, kept columns, the filter and the given split (columns)."""
