"""What a model sees in a promoter: its mutagenesis as a page, a picture or a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from model.artifacts.model_directory import facts_of_model, model_of
from model.interpretation.effect_plot import effect_map, map_height
from model.interpretation.saturation_mutagenesis import BASES, Mutagenesis, mutate
from model.prediction.validate import repaired
from pipeline.dataset.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting.html import Figures, Section, Table, render_page
from pipeline.reporting.svg import render_svg, standalone

SEEN = 0.0005
"""Effects below it are zeros in a table of three decimals."""
NONE_SEEN = f"no substitution changes the prediction by {SEEN} or more"
STRONGEST = 12
"""Substitutions in the page's table."""
TITLE = "Every substitution of the insert"


@dataclass(frozen=True)
class Explained:
    """What `explain` wrote. position (from 1), base, loss: of the most important base, and how much expression loses
    without it, mean over its substitutions; largest: the strongest effect of a single one, without its sign."""

    outputs: list[str]
    prediction: float
    substitutions: int
    position: int
    base: str
    loss: float
    largest: float


def explain(model: Path, promoter: str, outputs: list[Path], overrides: Sequence[str] = ()) -> Explained:
    """Predict a promoter and all its substitutions, and write files: .html, .svg, .tsv or .parquet by their names.

    model: its folder, or its run's; overrides: repairs of the promoter, see with_repairs. Raises UserError for a model
    or sequence that cannot be used, for names of another ending and for folders that are not there, before the work.
    """
    writers = [(output, _writer_of(output)) for output in outputs]
    model = model_of(model)
    repaired([promoter], with_repairs(facts_of_model(model)["assay"], overrides))

    from model.prediction.predictor import Predictor  # torch takes seconds: a mistake is told before

    found = mutate(Predictor(model, overrides=overrides), promoter)
    for output, write in writers:
        with new_file(output) as temporary:
            write(found, model, temporary)
    place = int(np.argmax(found.importance))
    return Explained(
        [str(output) for output in outputs],
        found.prediction,
        int(found.substituted.sum()),
        place + 1,
        found.insert[place],
        float(found.importance[place]),
        float(np.abs(found.effects).max()),
    )


def _writer_of(output: Path) -> Callable[[Mutagenesis, Path, Path], None]:
    if output.suffix not in WRITERS:
        raise UserError(f"{output}: expected a name ending in {', '.join(WRITERS)}")
    expect_folder(output)
    return WRITERS[output.suffix]


def _write_page(found: Mutagenesis, model: Path, file: Path) -> None:
    file.write_text(explanation(found, model), encoding="utf-8")


def _write_picture(found: Mutagenesis, model: Path, file: Path) -> None:
    del model
    file.write_text(standalone(_picture(found)), encoding="utf-8")


def _write_lines(found: Mutagenesis, model: Path, file: Path) -> None:
    del model
    table = found.table()
    lines = [table.column_names, *zip(*(column.to_pylist() for column in table.columns), strict=True)]
    file.write_text("".join("\t".join(map(_cell, line)) + "\n" for line in lines), encoding="utf-8")


def _cell(value: str | int | float) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _write_parquet(found: Mutagenesis, model: Path, file: Path) -> None:
    del model
    pa.parquet.write_table(found.table(), file)


WRITERS = {".html": _write_page, ".svg": _write_picture, ".tsv": _write_lines, ".parquet": _write_parquet}


def explanation(found: Mutagenesis, model: Path) -> str:
    """The page as HTML."""
    insert = found.insert
    facts = [
        ("predicted expression", f"{found.prediction:.3f}"),
        ("insert", insert),
        ("bases", f"{len(insert)}"),
        ("GC content", f"{sum(base in 'GC' for base in insert) / len(insert):.0%}"),
        ("substitutions predicted", f"{found.substituted.sum():,}"),
        ("lowest and highest of them", f"{found.predictions.min():.3f}, {found.predictions.max():.3f}"),
    ]
    numbers = "promoter-bert explain SEQUENCE -o effects.tsv"
    return render_page(
        "promoter-bert: what the model sees in a promoter",
        "Each base of the insert is replaced by each other one, and the promoter predicted anew. What changes is what "
        "the model has learned to look at; it need not be what the cell does.",
        [
            Section(
                "Prediction",
                "On the scale of the labels that the model was trained on.",
                [Table((), facts)],
                str(model),
            ),
            Section(
                TITLE,
                "Bars: what expression loses when the base is replaced, mean over its substitutions. Blue bars upwards "
                "hold expression up, as sites of activators do; orange ones downwards hold it down. Cells: what one "
                "substitution adds (blue) or takes (orange); dots are the promoter's own bases.",
                [Figures([_picture(found)])],
                numbers,
            ),
            _strongest(found, numbers),
        ],
        f"Model {model}",
    )


def _picture(found: Mutagenesis) -> str:
    return render_svg("effects", TITLE, effect_map(found), map_height(len(found.insert)))


def _strongest(found: Mutagenesis, source: str) -> Section:
    effects = np.where(found.substituted, found.effects, 0)
    if np.abs(effects).max() < SEEN:
        return Section("The strongest substitutions", f"{NONE_SEEN.capitalize()}.")
    order = np.argsort(-np.abs(effects), axis=None, kind="stable")[:STRONGEST]
    rows = [
        (f"{place + 1}", f"{found.insert[place]} → {BASES[base]}", f"{effects[place, base]:+.3f}",
         f"{found.predictions[place, base]:.3f}")
        for place, base in zip(*np.unravel_index(order, effects.shape), strict=True)
    ]  # fmt: skip
    return Section(
        "The strongest substitutions",
        "Positions are counted from the left end of the insert.",
        [Table(("position", "substitution", "effect", "prediction"), rows, frozenset({0, 2, 3}))],
        source,
    )
