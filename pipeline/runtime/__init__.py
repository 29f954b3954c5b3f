"""What any part may use: prefetch threads, worker processes, progress display, text for people."""
