import itertools
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.near_duplicates import candidates as buckets
from pipeline.near_duplicates import clusters as groups
from pipeline.near_duplicates import packing
from pipeline.near_duplicates import pairs as pairs_module
from pipeline.near_duplicates.candidates import cut_blocks
from pipeline.near_duplicates.clusters import find_clusters
from pipeline.near_duplicates.pairs import find_pairs

LETTERS = np.frombuffer(b"ACGTN", np.uint8)


def pairs(inserts, max_mismatches=2):
    """Return the pairs as a set of row pairs."""
    return pairs_of_column(pa.array(inserts, pa.string()), max_mismatches)


def pairs_of_column(column, max_mismatches):
    together = [
        pair for i, j in find_pairs(column, max_mismatches) for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert len(together) == len(set(together))
    assert all(i < j for i, j in together)
    return set(together)


def group_texts(inserts, max_mismatches=2):
    """Return the clusters by leader, as texts."""
    result = find_clusters(pa.array(inserts, pa.string()), max_mismatches)
    assert result.rows.tolist() == sorted(set(result.rows.tolist()))
    texts = defaultdict(set)
    for row, leader in zip(result.rows.tolist(), result.leaders.tolist(), strict=True):
        texts[inserts[leader]].add(inserts[row])
    assert len(set(result.leaders.tolist())) == len(texts)
    return dict(texts)


def near(left, right, max_mismatches):
    """Apply the definition to two different texts."""
    if len(left) == len(right):
        return sum(a != b for a, b in zip(left, right, strict=True)) <= max_mismatches
    short, long = sorted((left, right), key=len)
    return len(long) - len(short) == 1 and any(long[:p] + long[p + 1 :] == short for p in range(len(long)))


def pairs_by_definition(inserts, max_mismatches):
    first = {insert: row for row, insert in reversed(list(enumerate(inserts)))}
    return {
        tuple(sorted((first[left], first[right])))
        for left, right in itertools.combinations(first, 2)
        if near(left, right, max_mismatches)
    }


def groups_by_definition(inserts, max_mismatches):
    group = {insert: {insert} for insert in inserts}
    for i, j in pairs_by_definition(inserts, max_mismatches):
        if group[inserts[i]] is not group[inserts[j]]:
            group[inserts[i]] |= group[inserts[j]]
            for member in group[inserts[j]]:
                group[member] = group[inserts[i]]
    return {min(members): members for members in group.values() if len(members) > 1}


def pairs_by_comparing_all(inserts, max_mismatches):
    """Apply the definition to thousands of texts: compare all pairs, delete every base."""
    result = set()
    by_length = defaultdict(list)
    for row, insert in enumerate(inserts):
        by_length[len(insert)].append(row)
    for length, rows in by_length.items():
        letters = np.frombuffer("".join(inserts[row] for row in rows).encode(), np.uint8).reshape(len(rows), length)
        one_hot = (letters[:, :, None] == LETTERS).reshape(len(rows), -1).astype(np.float32)
        for start in range(0, len(rows), 1000):
            equal = one_hot[start : start + 1000] @ one_hot[start:].T
            i, j = np.nonzero(equal >= length - max_mismatches)
            result |= {(rows[start + a], rows[start + b]) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a < b}
        shorter = {inserts[row]: row for row in by_length.get(length - 1, [])}
        for row in rows if shorter else []:
            insert = inserts[row]
            for place in range(length):
                other = shorter.get(insert[:place] + insert[place + 1 :])
                if other is not None:
                    result.add((min(row, other), max(row, other)))
    return result


def random_insert(random, length, letters="ACGT"):
    return "".join(random.choice(list(letters), length))


def mutated(random, insert, changes):
    letters = list(insert)
    for place in random.choice(len(insert), changes, replace=False):
        letters[place] = random.choice([letter for letter in "ACGTN" if letter != letters[place]])
    return "".join(letters)


def shortened(random, insert, bases):
    for _ in range(bases):
        place = random.integers(len(insert))
        insert = insert[:place] + insert[place + 1 :]
    return insert


@contextmanager
def small_buckets():
    """Divide buckets as early as possible, with chunks of a few pairs, so that few inserts reach all code."""
    with ExitStack() as stack:
        for module, name, value in (
            (pairs_module, "MAX_BUCKET", 1),
            (pairs_module, "MIN_BLOCK_BASES", 1),
            (buckets, "CHUNK", 5),
            (packing, "_BATCH", 7),
            (groups, "_MAX_PAIRS", 3),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


def test_mismatches_by_hand():
    #           0       1       2       3
    inserts = ["AAAAA", "AAAAC", "AACCC", "GGGGG"]
    assert pairs(inserts, 0) == set()
    assert pairs(inserts, 1) == {(0, 1)}
    assert pairs(inserts, 2) == {(0, 1), (1, 2)}
    assert pairs(inserts, 3) == {(0, 1), (0, 2), (1, 2)}
    assert pairs(inserts, 5) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_one_indel_by_hand():
    #           0       1      2      3       4      5
    inserts = ["ACGT", "CGT", "ACG", "ACCGT", "AGT", "GT"]
    assert pairs(inserts, 0) == {(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (4, 5)}
    assert pairs(["ACGT", "ACTG", "CAGT", "TACG"], 0) == set()  # two indels apart, equally long
    assert pairs(["ACGT", "AC"], 4) == set()


def test_empty_insert_has_no_substitutions():
    assert pairs([""]) == pairs([]) == set()
    assert pairs(["", "A", "N", "AC"], 0) == {(0, 1), (0, 2), (1, 3)}
    assert pairs(["", "A", "N", "AC"], 2) == {(0, 1), (0, 2), (1, 2), (1, 3)}


def test_n_equals_only_n():
    assert pairs(["ACNT", "ACGT", "ACNNT"], 0) == {(0, 2)}
    assert pairs(["ACNT", "ACGT", "ACNNT"], 1) == {(0, 1), (0, 2)}


def test_equal_inserts_count_as_one():
    assert pairs(["TTTT", "ACGT", "ACGT", "ACGA", "ACGA", "TTTT"], 1) == {(1, 3)}
    assert group_texts(["ACGT", "ACGT"]) == {}


def test_clusters_are_connected_and_named_by_the_first_insert():
    chain = ["GGAAAA", "GGGGAA", "GGGGGG"]  # the ends are 4 apart
    result = find_clusters(pa.array(["CTCTCTCT", *chain, "TTTTTTT", "TTTTTTTT"]), 2)
    assert result.rows.tolist() == [1, 2, 3, 4, 5]
    assert result.leaders.tolist() == [1, 1, 1, 4, 4]
    assert group_texts(["N", "T"], 1) == {"N": {"N", "T"}}  # as text and SQL have it, N before T


@pytest.mark.parametrize("length", [1, 19, 20, 21, 39, 40, 41, 60, 500])
def test_every_position_counts(length):
    insert = ("ACGT" * length)[:length]
    places = range(length) if length < 100 else [0, 19, 20, 249, 250, 251, 480, 499]
    for place in places:
        changed = insert[:place] + "N" + insert[place + 1 :]
        longer = insert[:place] + "N" + insert[place:]
        assert pairs([insert, changed, longer], 0) == {(0, 2)} | ({(1, 2)} if near(changed, longer, 0) else set())
        assert {(0, 1), (0, 2)} <= pairs([longer, insert, changed][::-1], 1) | pairs([insert, changed, longer], 1)
        assert pairs([insert, changed], 1) == {(0, 1)}


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text("AC", max_size=9) | st.text("ACGTN", max_size=4), max_size=40), st.integers(0, 3))
def test_short_inserts_are_paired_by_the_definition(inserts, max_mismatches):
    assert pairs(inserts, max_mismatches) == pairs_by_definition(inserts, max_mismatches)


@st.composite
def families(draw):
    """Draw long inserts with few edits between them, which share most blocks."""
    ancestors = draw(st.lists(st.text("ACN", min_size=1, max_size=45), min_size=1, max_size=2))
    inserts = list(ancestors)
    for _ in range(draw(st.integers(0, 25))):
        insert = draw(st.sampled_from(inserts))
        place = draw(st.integers(0, len(insert)))
        new = draw(st.sampled_from("ACN"))
        inserts.append(insert[:place] + draw(st.sampled_from(["", new])) + insert[place + draw(st.integers(0, 1)) :])
    return draw(st.permutations(inserts))


@settings(deadline=None, max_examples=200)
@given(families(), st.integers(0, 4))
def test_divided_buckets_give_the_same_pairs_once(inserts, max_mismatches):
    expected = pairs_by_definition(inserts, max_mismatches)
    assert pairs(inserts, max_mismatches) == expected
    with small_buckets():
        assert pairs(inserts, max_mismatches) == expected


@settings(deadline=None, max_examples=100)
@given(families(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_clusters_are_equal_in_any_order(inserts, max_mismatches, random):
    expected = groups_by_definition(inserts, max_mismatches)
    with small_buckets():
        assert group_texts(inserts, max_mismatches) == expected
    random.shuffle(inserts)
    assert group_texts(inserts, max_mismatches) == expected


@pytest.fixture(scope="module")
def many():
    """Make 20,000 distinct inserts: random, families, repeats of a few bases, and very short ones."""
    random = np.random.default_rng(7)
    inserts = [random_insert(random, length) for length in random.choice([79, 80, 81], 6000, p=[0.3, 0.6, 0.1])]
    for ancestor in inserts[:1400]:
        for changes in (1, 2, 3, 4):
            inserts.append(mutated(random, ancestor, changes))
        inserts += [shortened(random, ancestor, 1), shortened(random, ancestor, 2)]
    for length in (80, 30):
        ancestor = random_insert(random, length)
        family = [mutated(random, ancestor, int(changes)) for changes in random.integers(1, 5, 1200)]
        inserts += [ancestor, *family, *(shortened(random, member, 1) for member in family[:300])]
    inserts += ["A" * length for length in range(100)]
    inserts += [mutated(random, "A" * 80, int(changes)) for changes in random.integers(1, 4, 300)]
    inserts += [("AC" * 50)[start : start + length] for start in (0, 1) for length in range(70, 90)]
    inserts += [random_insert(random, length, "ACGTN") for length in random.integers(0, 8, 2000)]
    inserts += [random_insert(random, 40) + "ACGTT" * 8 for _ in range(800)]
    inserts = list(dict.fromkeys(inserts))
    inserts += [random_insert(random, 80) for _ in range(20_000 - len(inserts))]
    assert len(set(inserts)) == 20_000
    return [inserts[row] for row in random.permutation(20_000)]


@pytest.mark.parametrize("max_mismatches", [0, 1, 2, 3])
def test_twenty_thousand_inserts_give_the_pairs_of_a_full_comparison(many, max_mismatches):
    expected = pairs_by_comparing_all(many, max_mismatches)
    assert len(expected) > 3000
    assert pairs(many, max_mismatches) == expected
    with patch.object(pairs_module, "MAX_BUCKET", 20), patch.object(buckets, "CHUNK", 1000):
        assert pairs(many, max_mismatches) == expected


def test_twenty_thousand_inserts_in_another_order_give_the_same_clusters(many):
    expected = group_texts(many)
    assert all(leader == min(members) for leader, members in expected.items())
    again = np.random.default_rng(8).permutation(len(many))
    assert group_texts([many[row] for row in [*again, *again[:5000]]]) == expected


def compared_at_once(column):
    """Record the numbers of candidate pairs per comparison."""
    sizes = []
    verify = pairs_module._select_mismatch_pairs

    def counted(inserts, i, j, max_mismatches):
        sizes.append(len(i))
        return verify(inserts, i, j, max_mismatches)

    with patch.object(pairs_module, "_select_mismatch_pairs", counted):
        list(find_pairs(column))
    return sizes


def two_libraries(size):
    """Make inserts whose first or last 60 bases are constant, so that no block distinguishes all."""
    random = np.random.default_rng(9)
    variable = [random_insert(random, 20) for _ in range(size)]
    return pa.array([v + "ACGT" * 15 if row % 2 else "GTCA" * 15 + v for row, v in enumerate(variable)])


def test_chunks_are_bounded_if_thousands_share_a_block():
    column = two_libraries(6000)
    with patch.object(buckets, "CHUNK", 1000), patch.object(pairs_module, "MAX_BUCKET", len(column)):
        compared = compared_at_once(column)
    assert sum(compared) > 3000 * 2999 // 2  # every two of a library
    assert max(compared) <= 1000 + 3000


def test_large_buckets_are_divided():
    column = two_libraries(20_000)
    assert sum(compared_at_once(column)) < 200 * len(column)  # every two of a library are 5,000 a row


def test_constant_region_is_split_over_the_blocks():
    random = np.random.default_rng(10)
    these = packing.pack(pa.array(["ACGT" * 15 + random_insert(random, 21) for _ in range(1000)]))[81]
    blocks = cut_blocks(these, np.arange(1000), None, np.arange(81), 3)
    assert np.array_equal(np.concatenate(blocks), np.arange(81))
    assert [len(block) for block in blocks[1:]] == [7, 7]


@pytest.mark.parametrize("positions", range(12))
@pytest.mark.parametrize("number", range(1, 6))
def test_blocks_are_a_partition_without_avoidable_empty_ones(positions, number):
    these = packing.pack(pa.array(["AAAAACCCCCAA", "AAAACCCCCCAA"]))[12]  # all information is in one position
    blocks = cut_blocks(these, np.arange(2), None, np.arange(positions), number)
    assert len(blocks) == number
    assert np.concatenate(blocks).tolist() == list(range(positions))
    assert all(len(block) for block in blocks[: min(positions, number)])


def test_slices_chunks_and_types_of_columns():
    inserts = ["ACGT", "TTTTTTT", "ACGA", "", "NNN", "TTTTTT", "ACGAA"]
    expected = pairs(inserts, 1)
    assert expected == {(0, 2), (1, 5), (2, 6)}
    for column in (
        pa.chunked_array([inserts[:2], [], inserts[2:]]),
        pa.chunked_array([["x", *inserts[:3]], [*inserts[3:], "x"]]).slice(1, len(inserts)),
        pa.array(["x", *inserts], pa.large_string()).slice(1),
    ):
        assert pairs_of_column(column, 1) == expected
        assert find_clusters(column, 1).rows.tolist() == [0, 1, 2, 5, 6]
    nothing = find_clusters(pa.chunked_array([], pa.string()))
    assert len(nothing.rows) == len(nothing.leaders) == 0


def test_invalid_inserts_are_named():
    with pytest.raises(UserError, match="'ACGU': expected letters ACGTN"):
        find_pairs(pa.array(["ACGT", "ACGU"]))
    with pytest.raises(UserError, match="1 of 2 inserts are null"):
        find_clusters(pa.array(["ACGT", None]))
    with pytest.raises(UserError, match="-1 mismatches: expected 0 or more"):
        find_pairs(pa.array(["ACGT"]), -1)
