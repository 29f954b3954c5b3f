"""Write the HTML pages of runs, from run directories alone (no torch).

Entry points: run_page.write_report for one run, compare_page.compare_runs for several.
"""
