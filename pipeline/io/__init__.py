"""Files and URLs: atomic writes, locks, remote file systems, HTTP downloads, Arrow helpers."""
