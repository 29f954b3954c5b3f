"""What is said of a pretraining beside the guesses without a model. Imports no torch."""

from collections.abc import Mapping
from typing import Any


def below_the_guess(masked: Mapping[str, Any]) -> str:
    """A sentence where the best weights are right less often than the most frequent k-mer is; else an empty text.

    masked: of a run's summary.
    """
    guess = masked["baselines"].get("most_frequent_kmer")
    if guess is None or "accuracy" not in masked or masked["accuracy"] >= guess["accuracy"]:
        return ""
    return "below the guess of the most frequent k-mer: too few steps to have learned anything"
