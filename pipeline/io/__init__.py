"""Files and URLs.

`atomic.new_file` and `replace_folder` (atomic writes), `locks.hold_lock`, `http.download_file` (resumes),
`remote.file_system` (any fsspec URL), `arrow.string_buffers`.
"""
