"""HTML pages of runs: report and compare."""
