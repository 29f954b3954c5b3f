"""How torch's CPU threads wait. Must be called before torch is imported."""

import os


def yield_idle_cores() -> None:
    """Let threads that wait for work sleep almost at once, unless the environment says otherwise.

    By default GNU OpenMP lets them spin for milliseconds. Two processes that share the cores then take them from
    each other: trainings side by side on two cores ran at a tenth of their speed, and at half of it this way.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
