"""HTML pages of runs, written from run directories without torch.

Entry points: run_page.write_report for one run, compare_page.compare_runs for several.
"""
