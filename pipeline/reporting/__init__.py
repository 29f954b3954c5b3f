"""HTML pages and SVG plots; the page of a dataset."""
