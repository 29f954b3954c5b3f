"""Rate of k-mer encoding on one core, compared with tokenizers and Python loops.

    python -m bench.shards.tokens [--rows 131072] [--times 7] [--k 1,3,6]

Each sequence has 410 bases: an insert of 110 bases between flanks of 150. promoter-bert encodes an Arrow column of
promoters, 4,096 per call. The tokenizers get prepared text (k-mers separated by spaces), the loop the extended
sequence; the preparation is not timed. Rates are per CPU second of all threads, that is of one core.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.measure import ONE_THREAD, markdown, medians

os.environ.update(ONE_THREAD)  # libraries read it on import

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from bench.promoters import ASSAY, RECORD, encode, extend, promoters, split_calls
from pipeline.shards.writer import BUFFER_BYTES
from pipeline.tokens.kmers import encode_promoters, vocabulary

INSERT, BASES = 110, 410
OURS = "promoter-bert"
Contender = tuple[int, Callable[[], object]]
"""Number of sequences, and the function that encodes them."""


def join_kmers(sequences: list[str], k: int) -> list[str]:
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
    return lambda: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def dict_loop(sequences: list[str], k: int) -> Callable[[], list[list[int]]]:
    table = {token: number for number, token in enumerate(vocabulary(k))}
    return lambda: [[table[text[i : i + k]] for i in range(len(text) - k + 1)] for text in sequences]


def copier(blocks: list[np.ndarray]) -> Callable[[], None]:
    def copy() -> None:
        for block in blocks:
            np.copy(block)

    return copy


def own_encoder(columns: list[Any], k: int) -> Callable[[], None]:
    buffer = np.empty(BUFFER_BYTES, np.uint8)  # reused from call to call, as in the shard writer

    def encode_columns() -> None:
        for column in columns:
            encode_promoters(column, ASSAY, k, buffer)

    return encode_columns


def contenders(rows: int, k: int) -> dict[str, Contender]:
    """Make all contenders, slow ones with fewer rows, and check that their ids equal ours."""
    column = promoters(rows, INSERT)
    expected = encode(column, k)
    assert expected.shape == (rows, BASES)
    few, some, many = (extend(column.slice(0, max(rows // share, 1))) for share in (128, 64, 16))
    lists = {
        "Hugging Face BertTokenizerFast": (few, bert_tokenizer(join_kmers(few, k), k)),
        "tokenizers WordLevel": (some, word_level(join_kmers(some, k), k)),
        "Python dict loop": (many, dict_loop(many, k)),
    }
    for name, (texts, tokenize) in lists.items():
        if not np.array_equal(tokenize(), expected[: len(texts), : BASES - k + 1]):
            raise SystemExit(f"{name}: other ids than ours at k = {k}")
    blocks = [expected[start : start + RECORD] for start in range(0, rows, RECORD)]
    return {
        OURS: (rows, own_encoder(split_calls(column), k)),
        **{name: (len(texts), tokenize) for name, (texts, tokenize) in lists.items()},
        "np.copy of the same bytes": (rows, copier(blocks)),
    }


def measure_rate(contender: Contender) -> dict[str, float]:
    rows, tokenize = contender
    start = time.process_time()
    tokenize()
    return {"rate": rows / (time.process_time() - start)}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument(
        "--rows",
        type=int,
        default=131_072,
        help="sequences for promoter-bert; the others get 1/16 to 1/128; default: 131072",
    )
    cli.add_argument("--times", type=int, default=7, help="repetitions; default: 7")
    cli.add_argument("--k", default="1,3,6", help="k-mer lengths in bases; default: 1,3,6")
    args = cli.parse_args()
    lines = []
    for k in map(int, args.k.split(",")):
        each = contenders(args.rows, k)
        results = medians({name: partial(measure_rate, encoder) for name, encoder in each.items()}, args.times)
        for name, numbers in results.items():
            rate = numbers["rate"]
            lines.append([f"k = {k}, {name}", f"{rate:,.0f}", f"{rate * BASES / 1e6:,.1f}", ratio(results, name)])
    print(markdown(["", "sequences/s", "million tokens/s", "ours / this"], lines))


def ratio(results: dict[str, dict[str, float]], name: str) -> str:
    return f"{results[OURS]['rate'] / results[name]['rate']:,.2f}"


if __name__ == "__main__":
    main()
