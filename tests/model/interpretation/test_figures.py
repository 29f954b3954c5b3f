"""Figures of explained sequences and variants: letters, motif hits, alignment, SVG and PNG files."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from model.interpretation.effect_plot import draw_row
from model.interpretation.explained import (
    ALTERNATIVE,
    REFERENCE,
    ExplainedRow,
    ExplainedSequence,
    align_variant,
    describe_change,
)
from model.interpretation.figures import describe_row, write_png_file, write_svg_file
from model.interpretation.hit_plot import MAX_TRACKS, draw_hits, place_hits
from model.interpretation.logo import draw_logo
from model.interpretation.motifs.meme_file import Motif
from model.interpretation.motifs.scan import MotifHit
from model.interpretation.saturation_mutagenesis import MutagenesisResult
from pipeline.reporting.svg import WIDTH

INSERTS = st.text("ACGT", min_size=1, max_size=30)


def test_letters_are_as_high_as_their_importance():
    heights = np.array([0.5, -0.25, 0.0, 1.0, 0.1], np.float32)
    axes = Figure().subplots()
    draw_logo(axes, "ACG-T", heights, range(5), marked=[1])
    boxes = [path.get_extents() for path in axes.collections[0].get_paths()]
    assert [round((box.x0 + box.x1) / 2) for box in boxes] == [0, 1, 4]  # neither a gap nor a height of zero
    assert [box.height for box in boxes] == pytest.approx([0.5, 0.25, 0.1])
    assert [box.y0 for box in boxes] == pytest.approx([0, -0.25, 0], abs=1e-9)
    assert [label.get_text() for label in axes.get_xticklabels()] == list("ACG-T")


@given(INSERTS, INSERTS)
def test_aligned_sides_are_the_inserts_with_gaps(reference, alternative):
    aligned = align_variant(reference, alternative)
    assert aligned.reference.replace("-", "") == reference
    assert aligned.alternative.replace("-", "") == alternative
    assert len(aligned.reference) == len(aligned.alternative) == max(len(reference), len(alternative))
    differ = [
        at for at, pair in enumerate(zip(aligned.reference, aligned.alternative, strict=True)) if len({*pair}) > 1
    ]
    assert aligned.changed == differ


@pytest.mark.parametrize(
    ("reference", "alternative", "text"),
    [
        ("ACGT", "ACTT", "G3T"),
        ("ACGT", "CCGA", "A1C, T4A"),
        ("ACGT", "ACGT", "no change"),
        ("ACGT", "ACTTGT", "3insTT"),
        ("ACGTA", "ACA", "3-4delGT"),
        ("ACGTA", "ACGA", "4delT"),
        ("AACCA", "AGGGA", "A2G, C3G, C4G"),
        ("ACCA", "AGGGA", "2-3delCCinsGGG"),
    ],
)
def test_changes_are_named_by_their_position(reference, alternative, text):
    assert describe_change(reference, alternative) == text


@cache
def motif(name, width):
    return Motif(name, name, np.full((width, 4), 0.25))


def hit(start, width, name="TF", strand="+", p_value=1e-5):
    return MotifHit(motif(name, width), start, start + width - 1, strand, 10.0, p_value)


def test_hits_in_a_track_do_not_overlap_and_the_others_are_counted():
    lines = [range(40), range(40, 80)]
    hits = [hit(start, 8, f"a_long_name_{start}") for start in range(-2, 79, 2)]
    placed, left_out = place_hits(hits, range(80), lines)
    assert len(placed) + left_out == len(hits)
    assert left_out > 0
    assert {each.track for each in placed} == set(range(MAX_TRACKS))
    for track in range(MAX_TRACKS):
        inside = sorted((each.first, each.end) for each in placed if each.track == track)
        assert all(end <= start for (_, end), (start, _) in pairwise(inside))
    assert placed[0].text == "a_long_name_-2 +"


def test_a_site_on_both_strands_is_drawn_once():
    placed, left_out = place_hits([hit(3, 6), hit(3, 6, strand="-"), hit(4, 6)], range(20), [range(20)])
    assert [(each.text, each.track) for each in placed] == [("TF ±", 0), ("TF +", 1)]
    assert left_out == 0


def test_motifs_that_share_a_name_are_drawn_apart():
    one = hit(3, 6)
    placed, _ = place_hits([one, replace(one, motif=replace(one.motif))], range(20), [range(20)])
    assert [(each.text, each.track) for each in placed] == [("TF +", 0), ("TF +", 1)]


def test_a_site_on_both_strands_is_left_out_once():
    hits = [hit(3, 6, f"m{number}", strand) for number in range(MAX_TRACKS + 2) for strand in "+-"]
    placed, left_out = place_hits(hits, range(20), [range(20)])
    assert (len(placed), left_out) == (MAX_TRACKS, 2)


def test_names_of_hits_end_within_their_line():
    line = range(40)
    placed, _ = place_hits([hit(36, 5, "a_long_name"), hit(2, 5, "a_long_name")], line, [line])
    axes = Figure(figsize=(7.2, 1)).subplots()
    axes.set_xlim(-0.5, 39.5)
    draw_hits(axes, placed, line)
    for text, end in zip(axes.texts, (40, 15), strict=True):
        box = text.get_window_extent().transformed(axes.transData.inverted())
        assert -0.5 <= box.x0 < box.x1 <= end - 0.5


def explained(insert, seed, hits=None, prediction=5.0):
    rng = np.random.default_rng(seed)
    result = MutagenesisResult(insert, prediction, np.full((len(insert), 4), prediction, np.float32))
    result.predictions[result.is_substitution] = rng.normal(5, 1, result.is_substitution.sum())
    return ExplainedSequence({"expression": result}, hits)


@pytest.mark.parametrize("bases", [20, 120])
@pytest.mark.parametrize("is_variant", [False, True])
def test_a_long_unit_is_written_once_and_touches_no_other_label(bases, is_variant):
    unit = "log2 of RNA over DNA barcodes, mean of three replicates"
    sides = []
    for seed in range(2):
        sequence = explained("ACGT" * (bases // 4), seed)
        sides.append(replace(sequence, results={"": replace(sequence.results["expression"], unit=unit)}))
    drawing = draw_row(ExplainedRow({REFERENCE: sides[0], ALTERNATIVE: sides[1]} if is_variant else {"": sides[0]}), "")
    figure = Figure(figsize=(WIDTH, drawing.height), layout="constrained")
    drawing.draw(figure)
    FigureCanvasAgg(figure).draw()
    boxes = [axes.yaxis.label.get_window_extent() for axes in figure.axes if axes.get_ylabel()]
    assert len(boxes) >= 2
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.y1 and box.x0 >= 0 for box in boxes)
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    texts = [text for text in figure.findobj(Text) if "replicates" in text.get_text()]
    assert len(texts) == 1
    assert 0 <= texts[0].get_window_extent().x0 < texts[0].get_window_extent().x1 <= figure.bbox.x1


def test_any_text_can_be_a_name(tmp_path):
    name, motif_name = r"$_$ \1 \d <b>&amp;'\"" + "\x01", "$^$<i>"
    row = ExplainedRow({"": explained("TTGACA", 2, [hit(1, 6, motif_name)])}, 1, name)
    assert len(describe_row(replace(row, name="x" * 10_000), "expression", is_label_named=False)) < 300
    write_svg_file(tmp_path / "out.svg", [row], ["expression"])
    write_png_file(tmp_path / "out.png", [row], ["expression"])
    root = ElementTree.parse(tmp_path / "out.svg").getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    title = r"$_$ \1 \d <b>&amp;'\"\x01: predicted expression 5.000"
    assert {title, f"{motif_name} +"} <= set(texts)
    assert root.get("aria-label") == title
    assert not [element for element in root.iter() if element.tag.rpartition("}")[2] in ("b", "i")]


def test_svg_and_png_hold_all_figures_with_their_names(tmp_path):
    sides = {REFERENCE: explained("ACGTTGCA", 0, [hit(2, 5, "REB1")]), ALTERNATIVE: explained("ACGTTTGCA", 1, [], 6.0)}
    rows = [ExplainedRow({"": explained("TTGACA", 2)}, 1, "first"), ExplainedRow(sides, 2, "an insertion")]
    write_svg_file(tmp_path / "out.svg", rows, ["expression"])
    root = ElementTree.parse(tmp_path / "out.svg").getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert "first: predicted expression 5.000" in texts
    assert "an insertion: predicted expression 5.000 → 6.000 (effect +1.000)" in texts
    assert {"REB1 +", "change"} <= set(texts)
    figures = [element for element in root if element.tag.endswith("}svg")]
    tops = [float(figure.get("y")) for figure in figures]
    heights = [float(figure.get("height")) for figure in figures]
    assert tops == [0, heights[0]]
    assert float(root.get("viewBox").split()[3]) == pytest.approx(sum(heights), rel=1e-4)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(ids)) == len(ids)
    write_png_file(tmp_path / "out.png", rows, ["expression"])
    pixels = imread(tmp_path / "out.png")
    assert pixels.shape[1] == 1440
    assert pixels.shape[0] == pytest.approx(sum(heights) / 72 * 200, abs=3)
    assert (pixels[0, 0] == 1).all()  # white, not transparent
