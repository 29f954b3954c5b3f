"""Numbers and sentences that all pages share."""

import pytest

from pipeline.dataset.splits.split_leaks import SplitLeaks
from pipeline.reporting.text import format_percent, leaks_text


@pytest.mark.parametrize(
    ("share", "text"), [(508 / 510, "99.6 %"), (9999 / 10_000, "99.9 %"), (1, "100 %"), (0.2, "20 %"), (0, "0 %")]
)
def test_only_all_is_100_percent(share, text):
    assert format_percent(share) == text
    assert format_percent(0.99999, 0) == "99 %"


def test_leaks_are_counted_and_many_are_a_problem():
    text = leaks_text(SplitLeaks(1592, 3, 0, 307))
    assert text.startswith("Of 1,592 ")
    assert "3 have a near-duplicate" in text
    assert "307 share a run of 40 bases" in text
    assert "reverse complement" not in text
    assert "too high" in text
    assert "too high" not in leaks_text(SplitLeaks(1592, 3, 0, 7))
    assert leaks_text(SplitLeaks(1592, 0, 0, 0)) == leaks_text(SplitLeaks(1592)) == leaks_text(None) == ""
