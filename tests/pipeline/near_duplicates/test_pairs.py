import itertools
from collections import Counter, defaultdict
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
from pipeline.near_duplicates import packing, search, spill
from pipeline.near_duplicates import pairs as pairs_module
from pipeline.near_duplicates.candidates import cut_blocks
from pipeline.near_duplicates.clusters import DisjointSets
from pipeline.near_duplicates.search import Equal, find_near_duplicates
from pipeline.near_duplicates.spill import Workspace
from tests.pipeline.near_duplicates.strands import by_length, packed, reverse_complement

LETTERS = np.frombuffer(b"ACGTN", np.uint8)


def pairs(inserts, max_mismatches=2, memory_bytes=1 << 30):
    """Return the pairs as a set of row pairs."""
    return pairs_of_column(pa.array(inserts, pa.string()), max_mismatches, memory_bytes)


def pairs_of_column(column, max_mismatches, memory_bytes=1 << 30):
    inserts = column.to_pylist()
    together = Counter()
    for relation in find_near_duplicates(by_length(inserts), max_mismatches, Workspace(memory_bytes)):
        if isinstance(relation, Equal):
            assert all(
                inserts[row] in (inserts[first], reverse_complement(inserts[first]))
                for row, first in zip(relation.rows.tolist(), relation.first.tolist(), strict=True)
            )
        else:
            together.update(map(tuple, np.sort([relation.i, relation.j], axis=0).T.tolist()))
    for (i, j), times in together.items():
        assert i < j
        # Once per strand on which the two are near.
        assert times <= sum(near_on_one_strand(inserts[i], right, max_mismatches) for right in both(inserts[j]))
    return set(together)


def both(insert):
    return insert, reverse_complement(insert)


def group_texts(inserts, max_mismatches=2, memory_bytes=1 << 30):
    """Return the clusters of different inserts by leader, as texts."""
    sets = DisjointSets(len(inserts))
    for relation in find_near_duplicates(by_length(inserts), max_mismatches, Workspace(memory_bytes)):
        sets.join(*((relation.rows, relation.first) if isinstance(relation, Equal) else (relation.i, relation.j)))
    texts = defaultdict(set)
    rows = []
    for batch, roots in sets.shared():
        rows += batch.tolist()
        for row, root in zip(batch.tolist(), roots.tolist(), strict=True):
            texts[root].add(inserts[row])
    assert rows == sorted(set(rows))
    return {min(members): members for members in texts.values() if len(members) > 1}


def near(left, right, max_mismatches):
    """Apply the definition to two different texts, on both strands."""
    return any(near_on_one_strand(left, other, max_mismatches) for other in both(right))


def near_on_one_strand(left, right, max_mismatches):
    if len(left) == len(right):
        return sum(a != b for a, b in zip(left, right, strict=True)) <= max_mismatches
    short, long = sorted((left, right), key=len)
    return len(long) - len(short) == 1 and any(long[:p] + long[p + 1 :] == short for p in range(len(long)))


def pairs_by_definition(inserts, max_mismatches):
    first = {min(both(insert)): row for row, insert in reversed(list(enumerate(inserts)))}
    return {
        tuple(sorted((first[left], first[right])))
        for left, right in itertools.combinations(first, 2)
        if near(left, right, max_mismatches)
    }


def groups_by_definition(inserts, max_mismatches):
    group = {insert: {*both(insert)} & {*inserts} for insert in inserts}
    for i, j in pairs_by_definition(inserts, max_mismatches):
        if group[inserts[i]] is not group[inserts[j]]:
            group[inserts[i]] |= group[inserts[j]]
            for member in group[inserts[j]]:
                group[member] = group[inserts[i]]
    return {min(members): members for members in group.values() if len(members) > 1}


def mismatches_by_comparing_all(inserts, at_most):
    """Apply the definition to thousands of texts: compare all pairs, delete every base.

    Returns the mismatches of each pair within `at_most`; 0 for one indel.
    """
    result = {}
    first = {min(both(insert)): row for row, insert in reversed(list(enumerate(inserts)))}
    by_length = defaultdict(dict)
    for insert, row in first.items():
        by_length[len(insert)][insert] = row
    for length, distinct in by_length.items():
        rows = np.array(list(distinct.values()))
        own, other = (one_hot([change(insert) for insert in distinct], length) for change in (str, reverse_complement))
        for start in range(0, len(rows), 1000):
            equal = np.maximum(own[start : start + 1000] @ own.T, own[start : start + 1000] @ other.T)
            i, j = np.nonzero(equal >= length - at_most)
            for a, b, same in zip(rows[start + i].tolist(), rows[j].tolist(), equal[i, j].tolist(), strict=True):
                if a < b:
                    result[a, b] = length - int(same)
        shorter = by_length.get(length - 1, {})
        for insert, row in distinct.items() if shorter else ():
            for place in range(length):
                other_row = shorter.get(min(both(insert[:place] + insert[place + 1 :])))
                if other_row is not None:
                    result[min(row, other_row), max(row, other_row)] = 0
    return result


def one_hot(inserts, length):
    letters = np.frombuffer("".join(inserts).encode(), np.uint8).reshape(len(inserts), length)
    return (letters[:, :, None] == LETTERS).reshape(len(inserts), -1).astype(np.float32)


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
            (groups, "BATCH", 3),
            (search, "BATCH", 7),
            (spill, "CHUNK_BYTES", 400),
            (spill, "MAX_PARTITIONS", 4),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


def test_mismatches_by_hand():
    #           0       1       2       3
    inserts = ["AAAAA", "AAAAC", "AACCC", "GGGGG"]
    assert pairs(inserts, 0) == set()
    assert pairs(inserts, 1) == {(0, 1)}
    assert pairs(inserts, 2) == {(0, 1), (1, 2), (2, 3)}  # AACCC and CCCCC, the other strand of GGGGG
    assert pairs(inserts, 3) == {(0, 1), (0, 2), (1, 2), (2, 3)}
    assert pairs(inserts, 5) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_one_indel_by_hand():
    #           0       1      2      3       4      5
    inserts = ["ACGT", "CGT", "ACG", "ACCGT", "AGT", "GT"]
    assert pairs(inserts, 0) == {(0, 1), (0, 3), (0, 4), (1, 5), (4, 5)}  # CGT and ACG are one insert
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


def test_clusters_are_connected():
    chain = ["GGAAAA", "GGGGAA", "CCCCCC"]  # the ends are 4 apart; the last is on the other strand
    clusters = group_texts(["CTCTCTCT", *chain, "TTTTTTT", "TTTTTTTT"])
    assert clusters == {"CCCCCC": {*chain}, "TTTTTTT": {"TTTTTTT", "TTTTTTTT"}}
    assert group_texts(["AAAA", "TTTT", "AAAA"], 0) == {"AAAA": {"AAAA", "TTTT"}}


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


def test_twenty_thousand_inserts_give_the_pairs_of_a_full_comparison(many):
    mismatches = mismatches_by_comparing_all(many, 3)
    for max_mismatches in range(4):
        expected = {pair for pair, number in mismatches.items() if number <= max_mismatches}
        assert len(expected) > 3000
        assert pairs(many, max_mismatches) == expected
        with patch.object(pairs_module, "MAX_BUCKET", 20), patch.object(buckets, "CHUNK", 1000):
            assert pairs(many, max_mismatches, memory_bytes=1 << 20) == expected


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
        list(find_near_duplicates(by_length(column.to_pylist()), 2, Workspace()))
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
    assert max(compared) <= 1000 + 2 * len(column) // 2  # one bucket holds at most a library on both strands


def test_large_buckets_are_divided():
    column = two_libraries(20_000)
    assert sum(compared_at_once(column)) < 200 * len(column)  # every two of a library are 5,000 a row


def test_constant_region_is_split_over_the_blocks():
    random = np.random.default_rng(10)
    these = packed(["ACGT" * 15 + random_insert(random, 21) for _ in range(1000)])
    blocks = cut_blocks(these, np.arange(1000), None, np.arange(81), 3)
    assert np.array_equal(np.concatenate(blocks), np.arange(81))
    assert [len(block) for block in blocks[1:]] == [7, 7]


@pytest.mark.parametrize("positions", range(12))
@pytest.mark.parametrize("number", range(1, 6))
def test_blocks_are_a_partition_without_avoidable_empty_ones(positions, number):
    these = packed(["AAAAACCCCCAA", "AAAACCCCCCAA"])  # all information is in one position
    blocks = cut_blocks(these, np.arange(2), None, np.arange(positions), number)
    assert len(blocks) == number
    assert np.concatenate(blocks).tolist() == list(range(positions))
    assert all(len(block) for block in blocks[: min(positions, number)])


def test_slices_and_types_of_columns():
    inserts = ["", "NNN", "ACGT", "ACGA", "ACGAA", "TTTTTT", "TTTTTTT"]
    for column in (pa.array(["x", *inserts, "x"]).slice(1, 7), pa.array(["x", *inserts], pa.large_string()).slice(1)):
        found = find_near_duplicates([(np.arange(7), column)], 1, Workspace())
        pairs_found = {pair for near in found for pair in zip(near.i.tolist(), near.j.tolist(), strict=True)}
        assert pairs_found == {(2, 3), (3, 4), (5, 6)}
    assert list(find_near_duplicates([], 1, Workspace())) == []


def test_invalid_inserts_are_named():
    for inserts, max_mismatches, problem in (
        (["ACGT", "ACGU"], 2, "'ACGU': expected letters ACGTN"),
        (["ACGT", None], 2, "1 of 2 inserts are null"),
        (["ACGT"], -1, "-1 mismatches: expected 0 or more"),
    ):
        with pytest.raises(UserError, match=problem):
            list(find_near_duplicates([(np.arange(len(inserts)), pa.array(inserts))], max_mismatches, Workspace()))
