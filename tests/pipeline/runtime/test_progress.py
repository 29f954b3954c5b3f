"""Progress of a job without a terminal."""

import sys

import pytest

from pipeline.runtime import progress as module
from pipeline.runtime.progress import add_speed, count_steps, count_units, emit, progress
from pipeline.runtime.text import format_duration


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock by one that tests advance."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_every_few_seconds_with_the_time_left(clock, capsys):
    with progress("write", "rows") as update:
        advance = count_units(update, 400)
        for clock[0] in range(40):
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "write: 60 of 400 rows (15 %), 34 s left"
    assert lines[-1] == "write: 400 of 400 rows (100 %)"
    assert len(lines) == 8


def test_intervals_between_lines_grow(clock, capsys):
    with progress("train", "steps") as update:
        for clock[0] in range(20_000):
            update(int(clock[0]), 0, "")
    lines = [int(line.split()[1].replace(",", "")) for line in capsys.readouterr().err.splitlines()]
    assert lines[:2] == [5, 10]
    assert lines[-1] - lines[-2] == 60


def test_names_of_steps(clock, capsys):
    with progress("build", "steps") as update:
        step = count_steps(update, 2)
        step("reading a.tsv")
        clock[0] = 6
        step("cutting")
        step("")
    assert capsys.readouterr().err.splitlines() == [
        "build: 0 of 2 steps (0 %), reading a.tsv",
        "build: 1 of 2 steps (50 %), 6 s left, cutting",
        "build: 2 of 2 steps (100 %)",
    ]


def test_time_left_counts_the_rows_of_this_job_since_its_start(clock, capsys):
    """Resumed rows, and rows that come together after a slow start, must not make the job look fast."""
    with progress("explain", "rows") as update:
        update(8, 20, "", 8)
        clock[0] = 24
        update(10, 20, "", 8)
        update(11, 20, "", 8)
        clock[0] = 36
        update(14, 20, "", 8)
    assert capsys.readouterr().err.splitlines() == [
        "explain: 10 of 20 rows (50 %), 2 min left",
        "explain: 14 of 20 rows (70 %), 36 s left",
    ]


def test_speed_excludes_earlier_work(clock, capsys):
    with progress("predict", "rows") as update:
        show = add_speed(update)
        show(50, 100, 50)
        clock[0] = 10
        show(100, 100, 50)
    assert capsys.readouterr().err.splitlines() == ["predict: 100 of 100 rows (100 %), 5 per second"]


def test_a_note_is_not_repeated_and_lines_fit_120_columns(clock, capsys):
    parts = [f"metric {place} {'9' * 10}" for place in range(6)]
    with progress("train", "steps") as update:
        for clock[0], note in ((5, "loss 0.5"), (10, "loss 0.5"), (15, ", ".join(parts)), (20, "loss 0.5")):
            update(int(clock[0]), 90_000, note)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "train: 5 of 90,000 steps (0 %), loss 0.5",
        "train: 10 of 90,000 steps (0 %), 25.0 h left",
        f"train: 15 of 90,000 steps (0 %), 25.0 h left, {', '.join(parts[:3])}",
        "train: 20 of 90,000 steps (0 %), 25.0 h left, loss 0.5",
    ]
    assert len(f"{lines[2]}, {parts[3]}") > 120 >= len(lines[2])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (172_800, "2.0 days")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_quiet_prints_nothing(capsys):
    with progress("build", "steps", quiet=True) as update:
        update(1, 1, "")
    assert capsys.readouterr().err == ""


def test_terminal_shows_a_progress_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    with progress("build", "steps") as update:
        update(1, 2, "cutting")
    shown = capsys.readouterr().err
    assert "1/2" in shown
    assert "cutting" in shown


def test_a_long_note_leaves_room_for_the_count_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    with progress("finetune", "steps") as update:
        update(12_345, 67_890, "loss 0.5, lr 1e-3, 600 promoters/s, FLOP utilization 20 %")
    shown = capsys.readouterr().err
    assert "12345/67890" in shown
    assert "loss 0.5, lr 1e-3" in shown
    assert "FLOP" not in shown


def test_control_characters_in_messages_are_escaped(capsys):
    emit("a\x1b[31m\r\x07\ud800é\t1\n2")
    assert capsys.readouterr().err == "a\\x1b[31m\\r\\x07\\ud800é\t1\n2\n"
