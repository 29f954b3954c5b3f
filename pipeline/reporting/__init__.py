"""Render HTML pages with inline SVG figures, and the page of a dataset.

Entry points: html.render_page and its sections, svg.render_svg and the `plot` decorator, dataset_page.write_stats.
"""
