"""MLM baselines without a model, on the same masked tokens or hidden bases as the model.

Both baselines copy the k-mers that masking left unchanged or replaced, as a model soon learns to. For [MASK] they
predict

    most frequent k-mer                        the most frequent k-mer c of the training split: argmax P(c)
    most likely k-mer between its neighbours   argmax P(c) P(l | c) P(r | c), where l and r are the adjacent bases on
                                               the left and right, as far as they are visible:
                                               `choose_context_bases(k)` bases each, which is k up to k = 3

Accuracy over all tokens uses counts of all tokens; accuracy inside the insert uses counts inside it, as the plasmid is
the same in every promoter and would dominate.

For hidden spans, the baseline is the most frequent base.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from model.bert.device_batch import DeviceBatch
from model.bert.kmer_embedding import BASES
from model.bert.objectives import MaskedTask, Sums, sum_where
from model.bert.spans import SpanTask
from model.config import Pretrain
from model.training.evaluate import StopRequestError, evaluate
from model.training.prepare import EVALUATION_BATCH, RankData
from pipeline.tokens.kmers import ALPHABET, SPECIALS, vocabulary

COUNTED = 65_536
"""Most training promoters whose k-mers are counted; the frequencies converge much earlier."""
MOST_CELLS = 5**11
"""Limit on the number of (left context, right context, k-mer) combinations, which bounds the context."""

Counts = npt.NDArray[np.int64]


def choose_context_bases(k: int) -> int:
    """Choose the number of adjacent bases on each side that predict a k-mer."""
    return max(bases for bases in range(1, k + 1) if 5 ** (2 * bases + k) <= MOST_CELLS or bases == 1)


def count_kmers(
    tokens: npt.NDArray[np.unsignedinteger], lengths: npt.NDArray[np.int64], k: int, flanks: tuple[int, int]
) -> Counts:
    """Count the k-mers of promoters: all of them, and those wholly inside the insert.

    tokens: (rows, width) unsigned ids, one per base; lengths: (rows,) int64 bases; flanks: bases before and after the
    insert. Returns int64 counts (2, 1 + 2 contexts, 5^k), for all k-mers and those inside: the count of each k-mer,
    then its counts by left context, then by right context. A context counts if the adjacent k-mer is complete.
    """
    kmers = tokens.astype(np.int64) - len(SPECIALS)
    begin = np.arange(tokens.shape[1])
    end, ends = begin + k, lengths[:, None]
    bases = choose_context_bases(k)
    contexts, size = 5**bases, 5**k

    def count(selected: npt.NDArray[np.bool_]) -> Counts:
        row, base = np.nonzero(selected & (begin >= k))
        left = (1 + kmers[row, base - k] % contexts) * size + kmers[row, base]
        row, base = np.nonzero(selected & (end + k <= ends))
        right = (1 + contexts + kmers[row, base + k] // 5 ** (k - bases)) * size + kmers[row, base]
        cells = np.concatenate([kmers[selected], left, right])
        return np.bincount(cells, minlength=(1 + 2 * contexts) * size).reshape(-1, size)

    inside = (begin >= flanks[0]) & (end <= ends - flanks[1])
    return np.stack([count(end <= ends), count(inside)])


def find_likeliest_kmers(counts: Counts) -> npt.NDArray[np.int64]:
    """Find the id of the likeliest k-mer between two contexts: (contexts + 1, contexts + 1) int64.

    counts: (1 + 2 contexts, 5^k) int64, see count_kmers. Rows are left, columns right contexts; the last row and column
    stand for a masked or missing context. Counts are smoothed, see _compute_log_probabilities.
    """
    alone, contexts = counts[0], len(counts) // 2
    with np.errstate(divide="ignore"):
        log_p = np.log(alone / max(alone.sum(), 1))
    left, right = (
        _compute_log_probabilities(counts[1 : contexts + 1]),
        _compute_log_probabilities(counts[contexts + 1 :]),
    )
    best = [(log_p + log_p_left + right).argmax(1) for log_p_left in left]
    return np.stack(best) + len(SPECIALS)


def _compute_log_probabilities(counts: Counts) -> npt.NDArray[np.float64]:
    """Compute log P(context | k-mer), with a last row of zeros for an unknown context: (contexts + 1, k-mers) float64.

    counts: (contexts, k-mers). Each k-mer gets `contexts` pseudo-counts, in proportion to the overall frequencies of
    the contexts.
    """
    contexts = len(counts)
    share = (counts.sum(1) + 1) / (counts.sum() + contexts)
    smooth = (counts + contexts * share[:, None]) / (counts.sum(0) + contexts)
    return np.pad(np.log(smooth), ((0, 1), (0, 0)))


class BaselineTask(MaskedTask):
    """Objective that predicts by two tables instead of a language model: for all tokens, and inside the insert.

    tables: ids by left and right context, as find_likeliest_kmers returns them.
    """

    def __init__(
        self, k: int, mask_share: float, flanks: tuple[int, int], tables: list[Counts], insert_only: bool = False
    ) -> None:
        super().__init__(k, mask_share, flanks, insert_only)
        self.tables = [torch.from_numpy(table) for table in tables]

    def compute_sums(self, batch: DeviceBatch) -> Sums:
        """Count the masked k-mers that are predicted correctly; the loss is 0."""
        read, _, labels = self.mask_batch(batch)
        bases = choose_context_bases(self.k)
        contexts = 5**bases
        kmers = torch.nn.functional.pad(read, (1, 1)) - len(SPECIALS)
        left, right = kmers[:, :-2], kmers[:, 2:]
        left = torch.where(left >= 0, left % contexts, contexts)
        right = torch.where(right >= 0, right // 5 ** (self.k - bases), contexts)
        counted, visible = labels >= len(SPECIALS), read >= len(SPECIALS)
        correct, correct_inside = (
            (torch.where(visible, read, table.to(read.device)[left, right]) == labels) & counted
            for table in self.tables
        )
        zeros = torch.zeros_like(labels)
        sums = sum_where(self.find_masked_in_insert(batch, labels), zeros, counted, correct_inside)
        return Sums(zeros.double().sum(), counted.sum(), correct.sum(), zeros.new_empty(0), sums)


class SpanBaselineTask(SpanTask):
    """Objective that predicts one base for all hidden bases. frequent: 0 to 3, for all bases and inside the insert."""

    def __init__(
        self, k: int, share: float, flanks: tuple[int, int], frequent: tuple[int, int], insert_only: bool = False
    ) -> None:
        super().__init__(torch.nn.Identity(), k, share, flanks, insert_only)
        self.frequent = frequent

    def compute_sums(self, batch: DeviceBatch) -> Sums:
        """Count the hidden bases that are predicted correctly; the loss is 0."""
        *_, target = self.hide_batch(batch)
        everywhere, inside = (
            self.add_up(batch, torch.zeros(target.shape, device=target.device), target == base, target)
            for base in self.frequent
        )
        return everywhere._replace(inside=inside.inside)


def score_baselines(
    data: RankData, settings: Pretrain, micro_batch: int, is_stopped: Callable[[], bool]
) -> dict[str, dict[str, Any]]:
    """Score the baselines on pretrain/valid, with the masks of the model's evaluations. All ranks call this.

    Returns `accuracy` and `insert_accuracy` per baseline, and the most frequent k-mers as `kmer` and `insert_kmer`; for
    hidden spans the most frequent bases as `base` and `insert_base`. is_stopped: called by all ranks after each step.
    Raises StopRequestError if it returns true.
    """
    k, insert_only = data.index.k, settings.masked == "insert"
    flanks = len(data.index.left_flank), len(data.index.right_flank)
    counts = _count_training_split(data, flanks, is_stopped)
    if insert_only:
        counts = counts[[1, 1]]

    def score(task: MaskedTask | SpanTask) -> dict[str, Any]:
        values = evaluate(task, "pretrain/valid", data, micro_batch, is_stopped).values
        return {name: values[name] for name in ("accuracy", "insert_accuracy")}

    if settings.objective == "spans":
        bases = counts[:, 0].reshape(2, len(ALPHABET), -1).sum(-1)[:, :BASES]  # by the first base of a k-mer
        everywhere, inside = bases.argmax(1).tolist()
        scores = score(SpanBaselineTask(k, settings.mask_share, flanks, (everywhere, inside), insert_only))
        return {"most_frequent_base": {**scores, "base": ALPHABET[everywhere], "insert_base": ALPHABET[inside]}}
    frequent = [int(part[0].argmax()) + len(SPECIALS) for part in counts]
    side, names = 5 ** choose_context_bases(k) + 1, vocabulary(k)
    tables = {
        "most_frequent_kmer": [np.full((side, side), kmer) for kmer in frequent],
        "kmer_given_neighbours": [find_likeliest_kmers(part) for part in counts],
    }
    found = {
        name: score(BaselineTask(k, settings.mask_share, flanks, pair, insert_only)) for name, pair in tables.items()
    }
    found["most_frequent_kmer"] |= {"kmer": names[frequent[0]], "insert_kmer": names[frequent[1]]}
    return found


def _count_training_split(data: RankData, flanks: tuple[int, int], is_stopped: Callable[[], bool]) -> Counts:
    """Count the k-mers of the first promoters of pretrain/train over all ranks. Returns counts as count_kmers does."""
    k = data.index.k
    counts = count_kmers(np.zeros((0, k), np.uint8), np.zeros(0, np.int64), k, flanks)
    for step in data.open_evaluation_stream("pretrain/train", EVALUATION_BATCH["cuda"]).epoch(0):
        for batch in step.micro_batches:
            real = batch.weight > 0
            counts += count_kmers(batch.tokens[real], batch.lengths[real], k, flanks)
        if is_stopped():
            raise StopRequestError
        if step.consumed >= COUNTED:
            break
    totals = torch.from_numpy(counts).to(data.world.device)
    dist.all_reduce(totals)
    return np.asarray(totals.cpu().numpy())
