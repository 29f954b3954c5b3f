"""Loop of all ways to predict: items in order, several in progress, the others still in the iterator."""

from model.prediction import parallel


def test_items_begin_ahead_and_are_read_in_order():
    begun, read = [], []

    def begin(item):
        begun.append(item)
        return lambda: -item

    for item, values in parallel._in_order(iter(range(6)), begin, 2):
        assert values == -item
        assert begun == list(range(min(item + 3, 6)))
        read.append(item)
    assert read == list(range(6))
    assert list(parallel._in_order(iter(()), begin, 2)) == []


def test_late_parts_are_left_to_the_workers(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 11.0])
    monkeypatch.setattr(parallel.time, "monotonic", lambda: next(clock))
    parts = iter(range(6))
    assert list(parallel._for_seconds(parts, 10.0)) == [0, 1, 2]
    assert list(parts) == [3, 4, 5]
