"""Ranks of one stream as threads, with an exchange as torch.distributed offers it."""

import threading
from dataclasses import replace

import numpy as np

from pipeline.errors import UserError
from pipeline.stream.stream import RankSlice


class Exchange:
    """Exchange of facts between threads. calls: number of blocks; sent: facts per rank."""

    def __init__(self, ranks):
        self._barrier = threading.Barrier(ranks, timeout=60)
        self._slots = [None] * ranks
        self.sent = [0] * ranks

    def of(self, rank):
        def exchange(problem, facts, counts):
            assert facts is None or len(facts) == counts[rank]
            self._slots[rank] = problem, facts
            self._barrier.wait()
            slots = list(self._slots)
            self._barrier.wait()
            self.sent[rank] += counts[rank]
            problems = [text for text, _ in slots if text is not None]
            if problems:
                return problems[0], np.zeros(1, np.int64)
            facts = np.concatenate([part for _, part in slots])
            return None, facts[:1] if len(set(facts.tolist())) == 1 else facts

        return exchange


def run_world(make_stream, ranks, micro, epoch=0, consumed=0):
    """Run all ranks of an epoch. Returns their streams, and the steps or the error of each.

    make_stream: function (rank, RankSlice) -> stream.
    """
    exchange, outcomes = Exchange(ranks), [None] * ranks
    streams = [
        replace(make_stream(rank, RankSlice(rank, ranks, micro)), exchange=exchange.of(rank)) for rank in range(ranks)
    ]

    def run(rank):
        steps = []
        try:
            for step in streams[rank].epoch(epoch, consumed):
                steps.append(step)
            outcomes[rank] = steps
        except UserError as error:
            outcomes[rank] = len(steps), error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return streams, outcomes
