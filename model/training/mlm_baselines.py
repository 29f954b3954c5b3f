"""MLM baselines without a model, on the same masked tokens as the model.

Both read the k-mers in sight (the 10 of 80/10/10, as a model soon learns to) and guess where [MASK] stands:

    most frequent     always the most frequent k-mer c of the training split, argmax P(c)
    given neighbours  argmax P(c) P(l | c) P(r | c), with l and r the last and first bases of the adjacent k-mers, as
                      far as they can be read: `context_bases` each, all k of them up to k = 3

Accuracy over all tokens uses the counts of all tokens, accuracy inside the insert those inside it: the plasmid is the
same in every promoter and would dominate the counts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from model.bert.device_batch import DeviceBatch
from model.bert.objectives import MaskedTask, Sums, sums_over
from model.config import Pretrain
from model.training.data import RankData
from model.training.evaluate import evaluate
from pipeline.tokens.kmers import SPECIALS, vocabulary

COUNTED = 65_536
"""Training promoters whose k-mers are counted, at most: the shares converge long before."""
MOST_CELLS = 5**11
"""Limit on the table of the best k-mer between all neighbours, which bounds `context_bases`."""

Counts = npt.NDArray[np.int64]
Stopped = Callable[[], bool]


def context_bases(k: int) -> int:
    """Choose how many bases of each neighbour are the context of a k-mer."""
    return max(bases for bases in range(1, k + 1) if 5 ** (2 * bases + k) <= MOST_CELLS or bases == 1)


def count_kmers(
    tokens: npt.NDArray[np.unsignedinteger], lengths: npt.NDArray[np.int64], k: int, flanks: tuple[int, int]
) -> Counts:
    """Count the k-mers of promoters: all of them, and those wholly inside the insert.

    tokens: (rows, width) ids, one per base; lengths: (rows,) bases; flanks: bases before and after the insert.
    Returns (2, 1 + 2 contexts, 5^k), for all and inside: the count of each k-mer, then its counts by the context before
    it, then by the context behind it. A context counts where the whole adjacent k-mer lies in the sequence.
    """
    kmers = tokens.astype(np.int64) - len(SPECIALS)
    begin = np.arange(tokens.shape[1])
    end = begin + k
    ends = lengths[:, None]
    whole = end <= ends
    inside = whole & (begin >= flanks[0]) & (end <= ends - flanks[1])
    of_inside, of_flanks = (_count(kmers, which, begin >= k, end + k <= ends, k) for which in (inside, whole & ~inside))
    return np.stack([of_inside + of_flanks, of_inside])


def _count(
    kmers: Counts,
    which: npt.NDArray[np.bool_],
    has_before: npt.NDArray[np.bool_],
    has_behind: npt.NDArray[np.bool_],
    k: int,
) -> Counts:
    """Count the k-mers at the places `which`, (rows, width): (1 + 2 contexts, 5^k)."""
    bases = context_bases(k)
    contexts, size = 5**bases, 5**k
    row, base = np.nonzero(which & has_before)
    before = (kmers[row, base - k] % contexts) * size + kmers[row, base]
    row, base = np.nonzero(which & has_behind)
    behind = (kmers[row, base + k] // 5 ** (k - bases)) * size + kmers[row, base]
    sizes = ((kmers[which], size), (before, contexts * size), (behind, contexts * size))
    return np.concatenate([np.bincount(cells, minlength=length) for cells, length in sizes]).reshape(-1, size)


def best_between(counts: Counts) -> npt.NDArray[np.int64]:
    """Find the id of the likeliest k-mer between two contexts: (contexts + 1, contexts + 1).

    counts: (1 + 2 contexts, 5^k), see count_kmers. The last row and column stand for a neighbour that cannot be read.
    The counts beside each k-mer are smoothed by as many pseudo-counts as there are contexts, in the overall shares of
    the contexts.
    """
    alone, contexts = counts[0], len(counts) // 2
    with np.errstate(divide="ignore"):
        log_p = np.log(alone / max(alone.sum(), 1))
    before, behind = _log_probabilities(counts[1 : contexts + 1]), _log_probabilities(counts[contexts + 1 :])
    best = [(log_p + beside + behind).argmax(1) for beside in before]
    return np.stack(best) + len(SPECIALS)


def _log_probabilities(counts: Counts) -> npt.NDArray[np.float64]:
    """Compute log P(context | k-mer), with a last row of zeros for an unknown context: (contexts + 1, k-mers)."""
    contexts = len(counts)
    share = (counts.sum(1) + 1) / (counts.sum() + contexts)
    smooth = (counts + contexts * share[:, None]) / (counts.sum(0) + contexts)
    return np.pad(np.log(smooth), ((0, 1), (0, 0)))


class GuessTask(MaskedTask):
    """A table in place of a language model.

    whole, inside: ids by the contexts before and behind, as best_between returns them; for all tokens, and for those
    inside the insert.
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
        """Count the masked k-mers that are guessed right; the loss is 0."""
        masked = self.masked(batch)
        read, labels = masked.read, masked.labels
        bases = context_bases(self.k)
        contexts = 5**bases
        kmers = torch.nn.functional.pad(read, (1, 1)) - len(SPECIALS)
        before, behind = kmers[:, :-2], kmers[:, 2:]
        before = torch.where(before >= 0, before % contexts, contexts)
        behind = torch.where(behind >= 0, behind // 5 ** (self.k - bases), contexts)
        counted = labels >= len(SPECIALS)
        seen = read >= len(SPECIALS)
        right, right_inside = (
            (torch.where(seen, read, table.to(read.device)[before, behind]) == labels) & counted
            for table in (self.whole, self.inside)
        )
        nothing = torch.zeros_like(labels)
        sums = sums_over(self.within(batch, labels), nothing, counted, right_inside)
        return Sums(nothing.double().sum(), counted.sum(), right.sum(), nothing.new_empty(0), sums)


def score_baselines(
    data: RankData, settings: Pretrain, micro_batch: int, stopped: Stopped
) -> dict[str, dict[str, Any]] | None:
    """Score both guesses on pretrain/valid, with the masks of the model's evaluations. All ranks call this.

    Returns `accuracy` and `insert_accuracy` by the name of the guess, and for the most frequent k-mers `kmer` and
    `insert_kmer`. stopped: asked after each step; where it is true the result is None.
    """
    k, insert_only = data.index.k, settings.masked == "insert"
    counts = _count_training_split(data, stopped)
    if counts is None:
        return None
    if insert_only:
        counts = counts[[1, 1]]
    names = vocabulary(k)
    frequent = [int(part[0].argmax()) + len(SPECIALS) for part in counts]
    side = 5 ** context_bases(k) + 1
    tables = {
        "most_frequent_kmer": [np.full((side, side), number) for number in frequent],
        "kmer_given_neighbours": [best_between(part) for part in counts],
    }
    scores: dict[str, dict[str, Any]] = {}
    for name, (whole, inside) in tables.items():
        task = GuessTask(k, settings.mask_share, data.flanks, whole, inside, insert_only)
        result = evaluate(task, "pretrain/valid", data, micro_batch, stopped)
        if result is None:
            return None
        scores[name] = {key: result.values[key] for key in ("accuracy", "insert_accuracy")}
    scores["most_frequent_kmer"] |= {"kmer": names[frequent[0]], "insert_kmer": names[frequent[1]]}
    return scores


def _count_training_split(data: RankData, stopped: Stopped) -> Counts | None:
    """Count the k-mers of the first promoters of pretrain/train over all ranks, see count_kmers. None where stopped."""
    k, flanks = data.index.k, data.flanks
    counts = count_kmers(np.zeros((0, k), np.uint8), np.zeros(0, np.int64), k, flanks)
    for step in data.evaluation_stream("pretrain/train").epoch(0):
        for batch in step.micro_batches:
            real = batch.weight > 0
            counts += count_kmers(batch.tokens[real], batch.lengths[real], k, flanks)
        if stopped():
            return None
        if step.consumed >= COUNTED:
            break
    return sum_over_ranks(torch.from_numpy(counts).to(data.world.device))


def sum_over_ranks(counts: torch.Tensor) -> Counts:
    """Sum whole numbers over all ranks. All ranks call this."""
    dist.all_reduce(counts)
    summed: Counts = counts.cpu().numpy()
    return summed
