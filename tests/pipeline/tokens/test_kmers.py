import itertools

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import load_config
from pipeline.dataset.database import statement
from pipeline.tokens import kmers
from pipeline.tokens.hf_tokenizer import build_tokenizer
from pipeline.tokens.kmers import encode_promoters
from tests.conftest import ROOT

bases = st.text(alphabet="ACGTN", max_size=40)
ks = st.integers(1, 8)


@pytest.fixture(scope="module")
def sql():
    """Open a database with the SQL macro of the dataset, the reference."""
    connection = duckdb.connect()
    connection.execute(
        "create table dataset as select 'A' as left_adapter, 'A' as right_adapter, '' as upstream, '' as downstream"
    )
    connection.execute(statement("09_sequence_macros.sql"))
    yield connection
    connection.close()


def assay(flank=0):
    return load_config(ROOT / "config.yaml", [f"assay.flank={flank}"]).assay


def test_vocabulary_of_k_3_has_130_tokens():
    tokens = kmers.vocabulary(3)
    assert len(tokens) == kmers.vocabulary_size(3) == 130
    assert tokens[:5] == ["[PAD]", "[CLS]", "[UNK]", "[SEP]", "[MASK]"]
    assert tokens[5:] == ["".join(letters) for letters in itertools.product("ACGTN", repeat=3)]


@pytest.mark.parametrize(
    ("k", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "uint16"), (6, "uint16"), (7, "uint32"), (8, "uint32")]
)
def test_ids_have_the_smallest_dtype(k, dtype):
    assert kmers.id_dtype(k) == dtype
    assert kmers.encode_text("N" * 10, k).dtype == dtype
    assert kmers.encode_text("N" * 10, k).max() == kmers.vocabulary_size(k) - 1


def test_ids_by_hand():
    assert kmers.encode_text("ACGT", 1).tolist() == [5, 6, 7, 8]
    # ACG = 0*25 + 1*5 + 2, CGT = 25 + 10 + 3, GTN = 50 + 15 + 4, TNN = 75 + 20 + 4; and the five specials
    assert kmers.encode_text("ACGT", 3).tolist() == [12, 43, 74, 104]
    assert kmers.encode_text("", 3).tolist() == []


@settings(deadline=None, max_examples=200)
@given(bases, ks)
def test_equal_to_the_sql_reference(sql, sequence, k):
    (expected,) = sql.execute("select kmer_ids(?, ?)", [sequence, k]).fetchone()
    assert kmers.encode_text(sequence, k).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(bases, st.integers(1, 5), st.booleans())
def test_equal_to_the_hugging_face_tokenizer(sequence, k, lower):
    tokenizer = build_tokenizer(assay(), k)
    ids = kmers.encode_text(sequence, k)
    for frame in range(k):
        whole = max(len(sequence) - frame, 0) // k
        expected = [kmers.CLS, *ids[frame::k][:whole], kmers.SEP]
        text = sequence[frame:]
        assert tokenizer.encode(text.lower() if lower else text).ids == expected


def test_hugging_face_tokenizer_adds_the_flanks():
    for flank in (0, 5, 150):
        where = assay(flank)
        tokenizer = build_tokenizer(where, 3)
        extended = where.left_flank + "ACGTACGNA" + where.right_flank
        promoter = where.left_adapter + "ACGTACGNA" + where.right_adapter
        assert tokenizer.encode(promoter).ids == tokenizer.encode(extended).ids
        assert (
            tokenizer.encode(promoter).ids[1:-1] == kmers.encode_text(extended, 3)[::3][: len(extended) // 3].tolist()
        )


@settings(deadline=None, max_examples=50)
@given(bases, st.integers(1, 5), st.booleans(), st.sampled_from([0, 5, 20]))
def test_hugging_face_tokenizer_cuts_overlapping_kmers(insert, k, lower, flank):
    """From a promoter, from an extended sequence, and from the k-mers of one."""
    where = assay(flank)
    tokenizer = build_tokenizer(where, k, overlapping=True)
    extended = where.left_flank + insert + where.right_flank
    count = max(len(extended) - k + 1, 0)
    expected = [kmers.CLS, *kmers.encode_text(extended, k)[:count], kmers.SEP]
    spaced = " ".join(extended[i : i + k] for i in range(count))
    for text in (where.left_adapter + insert + where.right_adapter, extended, spaced):
        assert tokenizer.encode(text.lower() if lower else text).ids == expected


def test_hugging_face_tokenizer_maps_other_letters_to_unk():
    assert build_tokenizer(assay(), 3).encode("ACGXCGACG").tokens == ["[CLS]", "ACG", "[UNK]", "ACG", "[SEP]"]
    overlapping = build_tokenizer(assay(), 3, overlapping=True)
    assert overlapping.encode("ACG-xGACG").tokens[1:-1] == ["ACG", *["[UNK]"] * 4, "GAC", "ACG"]


@settings(deadline=None, max_examples=100)
@given(bases, ks)
def test_bases_round_trip(sequence, k):
    assert kmers.decode_ids(kmers.encode_text(sequence, k), k) == sequence


@settings(deadline=None, max_examples=100)
@given(st.lists(bases, min_size=1, max_size=20), ks, st.integers(0, 12))
def test_many_promoters_are_encoded_like_single_ones(inserts, k, flank):
    where = assay(flank)
    promoters = pa.chunked_array([[where.left_adapter + i + where.right_adapter for i in inserts]])
    together = encode_promoters(promoters, where, k)
    assert len(together) == len(inserts)
    for i, insert in enumerate(inserts):
        expected = kmers.encode_text(where.left_flank + insert + where.right_flank, k)
        assert np.array_equal(together.row(i), expected)


@settings(deadline=None, max_examples=40)
@given(st.data(), ks, st.integers(0, 30), st.integers(0, 99))
def test_many_rows_of_very_different_lengths_are_encoded(data, k, flank, seed):
    """More rows than one block, lengths that differ by more than the flanks, and a used buffer."""
    where = assay(flank)
    longest = data.draw(st.sampled_from([0, 1, 12, 300]))
    rng = np.random.default_rng(seed)
    rows = data.draw(st.sampled_from([1, 7, kmers.BLOCK_ROWS, kmers.BLOCK_ROWS + 1]))
    inserts = ["".join(rng.choice(list("ACGTN"), rng.integers(0, longest + 1))) for _ in range(min(rows, 40))]
    inserts = (inserts * (rows // len(inserts) + 1))[:rows]
    promoters = pa.array([where.left_adapter + i + where.right_adapter for i in inserts])
    memory = np.full(data.draw(st.sampled_from([0, 1000, 20_000_000])), 77, np.uint8)
    together = encode_promoters(promoters, where, k, memory)
    assert together.values.dtype == kmers.id_dtype(k)
    alone = {i: kmers.encode_text(where.left_flank + i + where.right_flank, k) for i in set(inserts)}
    assert np.array_equal(together.values, np.concatenate([alone[i] for i in inserts]))
    assert together.offsets.tolist() == np.cumsum([0, *(len(alone[i]) for i in inserts)]).tolist()


def test_slices_and_chunks_of_a_column():
    where = assay(3)
    rows = [where.left_adapter + i + where.right_adapter for i in ("ACG", "T", "GGGTT", "", "NAC")]
    whole = encode_promoters(pa.array(rows), where, 3)
    for column in (pa.chunked_array([rows[:2], [], rows[2:]]), pa.chunked_array([["x", *rows]]).slice(1)):
        other = encode_promoters(column, where, 3)
        assert np.array_equal(whole.values, other.values)
        assert np.array_equal(whole.offsets, other.offsets)
    none = encode_promoters(pa.chunked_array([], pa.string()), where, 3)
    assert (len(none), none.offsets.tolist()) == (0, [0])


def test_other_letters_are_an_error():
    with pytest.raises(ValueError, match="letters other than"):
        kmers.encode_text("ACGU", 3)
