"""Warn of sequences that seem not to be of the assay of the model: no adapters, or lengths never seen in training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.schema import Assay
from pipeline.runtime.text import format_count

NameOf = Callable[[int], str]
"""Names the row of a valid sequence, by its place among the valid sequences of a call."""
EARLY_ROWS = 1000
UNSEEN_SHARE = 0.1
"""Share of the valid sequences from which lengths never seen in training are reported."""


class AssayFit:
    """Counts of sequences that a model's training data do not resemble, and one warning about them.

    facts: of the model directory; assay: with the requested repairs. warn: called at most once, after the first
    EARLY_ROWS rows, so that a long prediction can be stopped, or at the end. unseen_share: share of the valid sequences
    from which lengths never seen in training are reported; 0 reports a single one.

    Models that do not record the lengths of their training inserts are not checked for lengths. Models trained on bare
    inserts are not checked for adapters; nor are sequences whose adapters are repaired.
    """

    def __init__(
        self,
        facts: Mapping[str, Any],
        assay: Assay,
        warn: Callable[[str], None],
        unseen_share: float = UNSEEN_SHARE,
    ) -> None:
        self._warn, self._unseen_share = warn, unseen_share
        self._was_checked_early, self._has_warned = False, False
        self._adapters = assay.left_adapter, assay.right_adapter
        self._seen: Sequence[int] | None = facts.get("insert_lengths")
        are_exact = facts["assay"]["missing_adapters"] != "add" and not assay.adapter_mismatches
        self._checks_adapters = any(self._adapters) and are_exact
        self._all = self._rows = self._with_adapter = self._valid = self._unseen = 0
        self._unseen_lengths: tuple[int, int] | None = None
        self._example = ""

    def add(self, written: pa.ChunkedArray | pa.Array, valid: pa.Array, name_of: NameOf | None = None) -> None:
        """Count sequences. written: all of them as written; valid: the valid ones after repairs.

        name_of: function that names the row of a valid sequence, for an example in the warning.
        """
        self._all += len(written)
        if self._checks_adapters:
            upper = pc.ascii_upper(written)
            left, right = self._adapters
            ends = [pc.starts_with(upper, left)] * bool(left) + [pc.ends_with(upper, right)] * bool(right)
            found = ends[0] if len(ends) == 1 else pc.or_(*ends)
            self._rows += len(written) - pc.sum(pc.equal(upper, "")).as_py() if len(written) else 0
            self._with_adapter += pc.sum(found).as_py() or 0
        self.add_lengths(valid, name_of)
        if not self._was_checked_early and self._all >= EARLY_ROWS:
            self._was_checked_early = True
            self._report(f" (first {self._all:,} rows)")

    def add_lengths(self, valid: pa.Array, name_of: NameOf | None = None) -> None:
        """Count the lengths of valid sequences, such as the alternatives of variants. name_of: see add."""
        if self._seen is not None and len(valid):
            self._valid += len(valid)
            lengths = pc.subtract(pc.binary_length(valid), sum(map(len, self._adapters)))
            shortest, longest = self._seen
            self._add_lengths(lengths, shortest, longest, name_of)

    def finish(self) -> None:
        """Warn of the sequences, unless this has been done."""
        self._report("")

    def _report(self, where: str) -> None:
        if not self._has_warned and (text := self._describe()):
            self._has_warned = True
            self._warn(f"the sequences seem not to be of the model's assay{where}: {text}")

    def _add_lengths(self, lengths: pa.Array, shortest: int, longest: int, name_of: NameOf | None) -> None:
        is_unseen = pc.or_(pc.less(lengths, shortest), pc.greater(lengths, longest))
        unseen = lengths.filter(is_unseen)
        if len(unseen):
            if name_of is not None and not self._example:
                self._example = f", such as {name_of(pc.index(is_unseen, True).as_py())}"
            self._unseen += len(unseen)
            ends = pc.min_max(unseen).as_py()
            low, high = self._unseen_lengths or (ends["min"], ends["max"])
            self._unseen_lengths = min(low, ends["min"]), max(high, ends["max"])

    def _describe(self) -> str:
        """Describe how the sequences differ from the model's assay; an empty text if they do not."""
        problems = []
        if self._rows and not self._with_adapter:
            left, right = self._adapters
            problems.append(f"none of {self._rows:,} has its adapters {left}...{right}")
        if self._unseen_lengths is not None and self._unseen >= self._unseen_share * self._valid:
            assert self._seen is not None
            problems.append(
                f"{self._unseen:,} of {self._valid:,} have inserts of {_range(self._unseen_lengths)}, and the model "
                f"was trained on {_range(self._seen)}{self._example}"
            )
        return f"{'; '.join(problems)}; predictions of other sequences are unreliable" if problems else ""


def _range(lengths: Sequence[int]) -> str:
    shortest, longest = lengths
    return format_count(longest, "base") if shortest == longest else f"{shortest:,} to {longest:,} bases"
