"""Commands for several hosts: doctor, relaunch, cleanup of left processes."""
