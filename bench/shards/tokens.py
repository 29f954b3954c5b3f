"""Rate of k-mer ids on one core, beside tokenizers and loops.

    python -m bench.shards.tokens [--rows 131072] [--times 7] [--k 1,3,6]

Each sequence has 410 bases: a 110-base insert between flanks of 150. Ours encodes an Arrow column of
promoters, 4,096 per call. The tokenizers get prepared text (k-mers with spaces between them), the loop the extended
sequence; the preparation is not counted. Seconds are CPU seconds of all threads, that is of one core.
"""

import argparse
import os
import time
from collections.abc import Callable

from bench.measure import ONE_THREAD, markdown, medians

os.environ.update(ONE_THREAD)  # read by the libraries when they are first imported

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from bench.promoters import ASSAY, RECORD, calls, extended, ids, promoters
from pipeline.shards.writer import BUFFER_BYTES
from pipeline.tokens.kmers import encode_promoters, vocabulary

INSERT, BASES = 110, 410
OURS = "promoter-bert"
Contender = tuple[int, Callable[[], object]]
"""Number of sequences, and the function that makes their ids."""


def spaced(sequences: list[str], k: int) -> list[str]:
    return [" ".join(text[i : i + k] for i in range(len(text) - k + 1)) for text in sequences]


def bert_tokenizer(texts: list[str], k: int) -> Callable[[], list[list[int]]]:
    from transformers import BertTokenizerFast

    table = {token: number for number, token in enumerate(vocabulary(k))}
    tokenizer = BertTokenizerFast(vocab=table, do_lower_case=False)
    return lambda: tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]


def word_level(texts: list[str], k: int) -> Callable[[], list[list[int]]]:
    table = {token: number for number, token in enumerate(vocabulary(k))}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return lambda: [found.ids for found in tokenizer.encode_batch_fast(texts)]


def dict_loop(sequences: list[str], k: int) -> Callable[[], list[list[int]]]:
    table = {token: number for number, token in enumerate(vocabulary(k))}
    return lambda: [[table[text[i : i + k]] for i in range(len(text) - k + 1)] for text in sequences]


def copier(blocks: list[np.ndarray]) -> Callable[[], None]:
    def copy() -> None:
        for block in blocks:
            np.copy(block)

    return copy


def own_encoder(columns: list, k: int) -> Callable[[], None]:
    buffer = np.empty(BUFFER_BYTES, np.uint8)  # reused from call to call, as by the writer of shards

    def encode() -> None:
        for column in columns:
            encode_promoters(column, ASSAY, k, buffer)

    return encode


def contenders(rows: int, k: int) -> dict[str, Contender]:
    """Make every contender on its share of the rows, few for slow ones, and check that it gives our ids."""
    column = promoters(rows, INSERT)
    expected = ids(column, k)
    assert expected.shape == (rows, BASES)
    few, some, many = (extended(column.slice(0, max(rows // share, 1))) for share in (128, 64, 16))
    lists = {
        "Hugging Face BertTokenizerFast": (few, bert_tokenizer(spaced(few, k), k)),
        "tokenizers WordLevel": (some, word_level(spaced(some, k), k)),
        "Python dict loop": (many, dict_loop(many, k)),
    }
    for name, (texts, encode) in lists.items():
        if not np.array_equal(encode(), expected[: len(texts), : BASES - k + 1]):
            raise SystemExit(f"{name}: other ids than ours at k = {k}")
    blocks = [expected[start : start + RECORD] for start in range(0, rows, RECORD)]
    return {
        OURS: (rows, own_encoder(calls(column), k)),
        **{name: (len(texts), encode) for name, (texts, encode) in lists.items()},
        "np.copy of the same bytes": (rows, copier(blocks)),
    }


def rate_of(contender: Contender) -> dict[str, float]:
    rows, encode = contender
    began = time.process_time()
    encode()
    return {"rate": rows / (time.process_time() - began)}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--rows", type=int, default=131_072, help="of ours; the peers take 1/16 to 1/128")
    cli.add_argument("--times", type=int, default=7)
    cli.add_argument("--k", default="1,3,6")
    args = cli.parse_args()
    lines = []
    for k in map(int, args.k.split(",")):
        each = contenders(args.rows, k)
        found = medians({name: lambda name=name, each=each: rate_of(each[name]) for name in each}, args.times)
        for name, numbers in found.items():
            rate = numbers["rate"]
            lines.append([f"k = {k}, {name}", f"{rate:,.0f}", f"{rate * BASES / 1e6:,.1f}", ratio(found, name)])
    print(markdown(["", "sequences/s", "million tokens/s", "ours / this"], lines))


def ratio(found: dict[str, dict[str, float]], name: str) -> str:
    return f"{found[OURS]['rate'] / found[name]['rate']:,.2f}"


if __name__ == "__main__":
    main()
