"""A web server for the predictions of one model: a page for people, JSON for scripts.

Entry points: server.serve for the command, web.PredictionApp for any WSGI server.
"""
