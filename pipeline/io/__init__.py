"""Files and URLs.

Entry points: atomic.new_file and atomic.replace_folder (atomic writes), locks.hold_lock, http.download_file (resumes),
remote.open_file_system (any fsspec URL), arrow.view_strings.
"""
