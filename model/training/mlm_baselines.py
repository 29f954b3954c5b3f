"""What a masked-token accuracy is worth: two guesses without a model, made on the very tokens that the model is asked.

Both read off what is in sight (the 10 of 80/10/10, as a model soon learns to) and guess where [MASK] stands:

    most frequent     always the most frequent k-mer c of the training split, argmax P(c)
    given neighbours  argmax P(c) P(l | c) P(r | c), with l and r the last and first bases of the k-mers on either side,
                      as far as they can be read: `reach` bases each, all k of them up to k = 3

Accuracy over all tokens is guessed by what was counted over all, that inside the insert by what was counted there: the
plasmid is the same in every promoter and would drown it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from model.bert.objectives import DeviceBatch, MaskedTask, Sums
from model.training.evaluate import GLOBAL_BATCH, EvaluationData, evaluate
from pipeline.stream.stream import RankSlice, ShardStream
from pipeline.tokens.kmers import SPECIALS, vocabulary

COUNTED = 65_536
"""Training promoters that k-mers are counted in, at most: their shares stand still long before."""
MOST_CELLS = 5**11
"""Of the search for the best k-mer between all neighbours, which bounds `reach`."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KmerCounts:
    """Whole k-mers at all bases of some promoters: alone, and with the bases before and behind them.

    alone: (5^k,); before, behind: (5^reach, 5^k), a row each for what the `reach` bases next to the k-mer are.
    """

    alone: Counts
    before: Counts
    behind: Counts

    def __add__(self, other: "KmerCounts") -> "KmerCounts":
        return KmerCounts(self.alone + other.alone, self.before + other.before, self.behind + other.behind)

    def summed(self, device: torch.device) -> "KmerCounts":
        """Over all ranks; all of them call this."""
        parts = []
        for part in (self.alone, self.before, self.behind):
            tensor = torch.from_numpy(part).to(device)
            dist.all_reduce(tensor)
            parts.append(tensor.cpu().numpy())
        return KmerCounts(*parts)


def reach_of(k: int) -> int:
    """Bases of each neighbour that are looked at."""
    return max(reach for reach in range(1, k + 1) if 5 ** (2 * reach + k) <= MOST_CELLS or reach == 1)


def count_kmers(
    tokens: npt.NDArray[np.unsignedinteger], lengths: npt.NDArray[np.int64], k: int, flanks: tuple[int, int]
) -> tuple[KmerCounts, KmerCounts]:
    """The k-mers of promoters, all of them and those wholly inside the insert.

    tokens: (rows, width) ids at every base; lengths: (rows,) bases; flanks: bases before and after the insert.
    Neighbours are counted where the whole k-mer beside lies in the sequence, as in a reading frame.
    """
    kmers = tokens.astype(np.int64) - len(SPECIALS)
    begin = np.arange(tokens.shape[1])
    end = begin + k
    ends = lengths[:, None]
    whole = end <= ends
    inside = whole & (begin >= flanks[0]) & (end <= ends - flanks[1])
    both = [_counted(kmers, which, begin >= k, end + k <= ends, k) for which in (inside, whole & ~inside)]
    return both[0] + both[1], both[0]


def _counted(
    kmers: Counts,
    which: npt.NDArray[np.bool_],
    has_before: npt.NDArray[np.bool_],
    has_behind: npt.NDArray[np.bool_],
    k: int,
) -> KmerCounts:
    reach = reach_of(k)
    contexts, size = 5**reach, 5**k
    shape = (contexts, size)
    row, base = np.nonzero(which & has_before)
    before = (kmers[row, base - k] % contexts) * size + kmers[row, base]
    row, base = np.nonzero(which & has_behind)
    behind = (kmers[row, base + k] // 5 ** (k - reach)) * size + kmers[row, base]
    return KmerCounts(
        np.bincount(kmers[which], minlength=size),
        np.bincount(before, minlength=contexts * size).reshape(shape),
        np.bincount(behind, minlength=contexts * size).reshape(shape),
    )


def best_between(counts: KmerCounts) -> npt.NDArray[np.int64]:
    """The id of the likeliest k-mer between what can be read on either side: (5^reach + 1, 5^reach + 1).

    The last row and column are for a neighbour that cannot be read. What was counted beside a k-mer is smoothed by as
    many pseudo-counts as there are contexts, in their overall shares: beside a rare k-mer stands what stands elsewhere.
    """
    with np.errstate(divide="ignore"):
        alone = np.log(counts.alone / max(counts.alone.sum(), 1))
    before, behind = _log_chances(counts.before), _log_chances(counts.behind)
    best = [(alone + chances + behind).argmax(1) for chances in before]
    return np.stack(best) + len(SPECIALS)


def _log_chances(counts: Counts) -> npt.NDArray[np.float64]:
    """log P(context | k-mer), with a last row of zeros for an unknown context: (contexts + 1, k-mers)."""
    contexts = len(counts)
    share = (counts.sum(1) + 1) / (counts.sum() + contexts)
    smooth = (counts + contexts * share[:, None]) / (counts.sum(0) + contexts)
    return np.pad(np.log(smooth), ((0, 1), (0, 0)))


class GuessTask(MaskedTask):
    """A table in the place of a language model. whole: for all tokens; inside: for those inside the insert.

    whole, inside: ids by what can be read before and behind, as best_between gives them.
    """

    def __init__(
        self,
        k: int,
        mask_share: float,
        flanks: tuple[int, int],
        whole: npt.NDArray[np.int64],
        inside: npt.NDArray[np.int64],
        insert_only: bool = False,
    ) -> None:
        super().__init__(k, mask_share, flanks, insert_only)
        self.whole = torch.from_numpy(whole)
        self.inside = torch.from_numpy(inside)

    def forward(self, batch: DeviceBatch) -> Sums:
        """Which of the masked k-mers are guessed right; the loss is 0."""
        masked = self.masked(batch)
        read, labels = masked.read, masked.labels
        reach = reach_of(self.k)
        contexts = 5**reach
        kmers = torch.nn.functional.pad(read, (1, 1)) - len(SPECIALS)
        before, behind = kmers[:, :-2], kmers[:, 2:]
        before = torch.where(before >= 0, before % contexts, contexts)
        behind = torch.where(behind >= 0, behind // 5 ** (self.k - reach), contexts)
        counted = labels >= len(SPECIALS)
        seen = read >= len(SPECIALS)
        right, right_inside = (
            (torch.where(seen, read, table.to(read.device)[before, behind]) == labels) & counted
            for table in (self.whole, self.inside)
        )
        nothing = torch.zeros_like(labels)
        sums = self.sums_inside(batch, labels, nothing, counted, right_inside)
        return Sums(nothing.double().sum(), counted.sum(), right.sum(), nothing.new_empty(0), sums)


def baselines(
    data: EvaluationData, mask_share: float, given_up: Callable[[], bool], insert_only: bool = False
) -> dict[str, dict[str, Any]] | None:
    """Accuracies of both guesses on pretrain/valid, with the masks of its evaluations; all ranks call this.

    Gives, by the name of the guess, `accuracy` and `insert_accuracy`; the most frequent k-mers as `kmer` and
    `insert_kmer`. None where given_up says so, which is asked after each step.
    """
    k, flanks = data.index.k, (len(data.index.left_flank), len(data.index.right_flank))
    counted = _counted_in_training(data, flanks, given_up)
    if counted is None:
        return None
    if insert_only:
        counted = (counted[1], counted[1])
    names = vocabulary(k)
    frequent = [int(part.alone.argmax()) + len(SPECIALS) for part in counted]
    side = 5 ** reach_of(k) + 1
    tables = {
        "most_frequent_kmer": [np.full((side, side), number) for number in frequent],
        "kmer_given_neighbours": [best_between(part) for part in counted],
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (whole, inside) in tables.items():
        guess = GuessTask(k, mask_share, flanks, whole, inside, insert_only)
        result = evaluate(guess, "pretrain/valid", data, given_up)
        if result is None:
            return None
        found[name] = {key: result.values[key] for key in ("accuracy", "insert_accuracy")}
    found["most_frequent_kmer"] |= {"kmer": names[frequent[0]], "insert_kmer": names[frequent[1]]}
    return found


def _counted_in_training(
    data: EvaluationData, flanks: tuple[int, int], given_up: Callable[[], bool]
) -> tuple[KmerCounts, KmerCounts] | None:
    """The counts of the first promoters of pretrain/train over all ranks, all and inside; None where given up."""
    k, world = data.index.k, data.world
    stream = ShardStream(
        data.shards, data.index, "pretrain/train", GLOBAL_BATCH, RankSlice(world.rank, world.ranks), shuffle=False,
        agree=data.agree,
    )  # fmt: skip
    nothing = np.zeros((0, k), np.uint8)
    whole, inside = count_kmers(nothing, np.zeros(0, np.int64), k, flanks)
    steps: Iterator[Any] = stream.epoch(0)
    for step in steps:
        for batch in step.micro_batches:
            real = batch.weight > 0
            more = count_kmers(batch.tokens[real], batch.lengths[real], k, flanks)
            whole, inside = whole + more[0], inside + more[1]
        if given_up():
            return None
        if step.consumed >= COUNTED:
            break
    return whole.summed(world.device), inside.summed(world.device)
