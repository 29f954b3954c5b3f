import pytest

from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.shards.preview import format_insert, peek
from tests.pipeline.shards.shard_files import rows_of


def test_peek_shows_the_rows_of_the_dataset(made):
    index = read_index(made.shards)
    result = peek(made.shards, index, "finetune/test", 130)  # more than a record
    rows = rows_of(made.config, "finetune/test")
    assert [(p.id, p.extended) for p in result] == [(id_, extended) for id_, extended, _ in rows[:130]]
    assert [p.expression for p in result] == pytest.approx([e for _, _, e in rows[:130]], abs=1e-6)
    left, insert, right = format_insert(result[0], index).split("|")
    assert left + insert + right == result[0].extended
    assert (left, right) == (index.left_flank, index.right_flank)
    assert len(peek(made.shards, index, "finetune/test", 10**6)) == index.rows("finetune/test")
    with pytest.raises(UserError, match="no split finetune/none; expected one of pretrain/train"):
        peek(made.shards, index, "finetune/none")
