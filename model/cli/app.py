"""The program `promoter-bert`: the data commands of pipeline/cli.py, and those that need a model."""

import os
import re
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from model.cli.exit_codes import INTERRUPTED, failed, interrupted, not_read
from model.config import Config
from pipeline.cli.dataset import ConfigFile, DatasetFile, Invocation, Json, SequenceColumn, app, say
from pipeline.cli.dataset import configured as data_configured
from pipeline.cli.messages import FILES
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.errors import UserError
from pipeline.paths import shipped
from pipeline.runtime.progress import naming, progress, tell, with_speed
from pipeline.runtime.text import counted

OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)+=")
TAKE_NO_SETTINGS = ("generate", "download", "verify", "peek", "score", "onnx", "report", "compare")
"""Commands for which a setting would have no effect."""
BARE_KEY = re.compile(r"([a-z_]+)=")
MODEL = "Folder of a run, runs/NAME, or of its model, runs/NAME/model."


@app.command()
def predict(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help=MODEL)],
    files: Annotated[
        list[str],
        typer.Argument(
            help=f"Promoters: {FILES}; - for standard input (lines or FASTA). Labels are not needed, and not read."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="File of sequence<TAB>prediction lines (.tsv, .txt), .csv (with a header line) or .parquet; - for "
            "lines on standard output.",
        ),
    ],
    sequence_column: SequenceColumn = None,
    names: Annotated[
        bool, typer.Option("--names", help="First column of the output: the name in each FASTA header, up to a space.")
    ] = False,
    name_column: Annotated[
        str | None,
        typer.Option(help="First column of the output: this one of the input, by its name or number from 1."),
    ] = None,
    both_strands: Annotated[
        bool,
        typer.Option(
            "--both-strands",
            help="Mean over the promoter and its reverse complement; for models fine-tuned with reverse_complement.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on a CPU, some 0.5 GB each [default: one; after 10 s, one a core]."),
    ] = None,
    leaderboard: Annotated[
        Path | None,
        typer.Option(help="The challenge's sample_submission.json: write the JSON that its leaderboard takes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the expression of promoters, in the order they come.

    A killed run goes on with the same command. Several GPUs: deepspeed --module model.cli predict ...

    The model's folder holds its settings. Only repairs of sequences can be asked for beside them:
    assay.white_space=strip, assay.lower_case=upper, assay.uracil=thymine, assay.iupac=n, assay.missing_adapters=add.
    """
    from model.prediction.request import Asked, check_asked
    from model.prediction.writers import is_stream
    from pipeline.dataset.input_format import Columns

    columns = Columns(sequence_column, name=name_column)
    asked = Asked(model, files, output, columns, both_strands, workers, leaderboard, _overrides(context), names)
    if "RANK" not in os.environ:  # a mistake is told before torch is loaded, which takes seconds
        check_asked(asked)

    from model.prediction.files import predict_files

    leads = os.environ.get("RANK", "0") == "0"
    with progress("predict", "promoters", quiet=as_json or not leads) as show:
        result = predict_files(asked, with_speed(show), lambda text: tell(f"warning: {text}"))
    if result is None:
        return
    place = "standard output" if output == "-" else output
    # Where the predictions go to standard output, the summary must not.
    with redirect_stdout(sys.stderr) if is_stream(output) else nullcontext():
        say(
            asdict(result),
            as_json,
            [
                f"{place}: {counted(result.rows, 'promoter')} in {result.seconds:,.1f} s"
                + (f", {result.found:,} of them by a run before that was ended" if result.found else "")
                + f" ({result.rows_per_second:,.0f} a second)",
                *(f"no prediction for {count:,}: {problem}" for problem, count in result.problems.items()),
                *([result.remedy] if result.remedy else []),
                *([f"row by row in {result.problems_file}"] if result.problems_file else []),
            ],
        )


@app.command()
def ceiling(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    as_json: Json = False,
) -> None:
    """For generated rows: the run's test Pearson beside a mean predictor and the highest to be expected."""
    from pipeline.dataset.synthetic_ceiling import score_against_ceiling

    settings = configured(context, config, dataset__path=None if dataset is None else str(dataset))
    score = score_against_ceiling(settings.dataset.path, settings.run.name)
    say(
        asdict(score),
        as_json,
        [
            f"test Pearson of run {settings.run.name} on {counted(score.promoters, 'promoter')}",
            f"  mean predictor   {0:.3f}",
            f"  trained model    {score.pearson:.3f}",
            f"  ceiling          {score.ceiling:.3f}",
        ],
    )


@app.command()
def score(
    predictions: Annotated[
        Path, typer.Argument(help="sequence<TAB>prediction lines, or JSON by row number of the test file.")
    ],
    labels: Annotated[Path, typer.Option(help="sequence<TAB>expression lines of all rows, or JSON by row number.")],
    subsets: Annotated[Path, typer.Option(help="Folder test_subset_ids, or public_leaderboard_ids.")],
    public: Annotated[
        Path | None, typer.Option(help="Folder public_leaderboard_ids: left out, as the final score does.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="test_sequences.txt, for labels by row number and predictions by sequence.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The DREAM Challenge's score of predictions: nine correlations with 95 % intervals, and their weighted means."""
    from model.cli.messages import score_lines
    from model.scoring.dream_files import score_files

    result = score_files(predictions, labels, subsets, public, test)
    say(asdict(result), as_json, score_lines(result))


@app.command()
def explain(
    context: typer.Context,
    sequence: Annotated[str, typer.Argument(help="A promoter, adapters included.")],
    output: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            help="File to write: a page (.html), a picture (.svg) or a table (.tsv, .parquet); several may be given.",
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(help="Folder of a run, or of its model [default: that of the config's run].")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Show what a model sees in a promoter: the effect of each substitution in its insert.

    Of the settings run.name and run.path choose the model; repairs of the sequence, as for predict, go to it.
    """
    from model.interpretation.page import NONE_SEEN, SEEN
    from model.interpretation.page import explain as run

    overrides = _overrides(context)
    if model is None:
        model = configured(context, config).run.directory / "model"
        overrides = tuple(text for text in overrides if not text.startswith("run."))
    result = run(model, sequence, output, overrides)
    way = "loses" if result.loss > 0 else "gains"
    base = "the unknown base N" if result.base == "N" else result.base
    most = (
        f"it {way} most where {base} at {result.position} of the insert is replaced: {abs(result.loss):.3f} in the "
        "mean over its substitutions"
    )
    say(
        asdict(result),
        as_json,
        [
            f"{', '.join(result.outputs)}: {counted(result.substitutions, 'substitution')}",
            f"predicted expression {result.prediction:.3f}; {NONE_SEEN if result.largest < SEEN else most}",
        ],
    )


@app.command()
def onnx(
    model: Annotated[Path, typer.Argument(help=MODEL)],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write, .onnx.")] = Path("model.onnx"),
    as_json: Json = False,
) -> None:
    """Write a model as one ONNX file that takes the letters of promoters, for programs in any language.

    Takes the extra: pip install -e '.[onnx]'. Where onnxruntime is installed, the file is compared with the
    model before it gets its name.
    """
    from model.export.onnx import STEPS, export_onnx

    with progress("onnx", "steps", quiet=as_json) as show:
        written = export_onnx(model, output, naming(show, STEPS))
    compared = (
        "not compared with the model: onnxruntime is not installed"
        if written.difference is None
        else f"predicts {counted(written.promoters_compared, 'promoter')} as the model does, within "
        f"{written.difference:.1g}"
    )
    say(asdict(written), as_json, [f"{written.file}: {written.bytes / 1e6:,.1f} MB", compared])


@app.command()
def doctor(
    context: typer.Context,
    hostfile: Annotated[Path | None, typer.Option(help="Hosts to check [default: this machine only].")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    deepspeed_config: Annotated[
        Path | None, typer.Option("--deepspeed_config", help="[default: ds_config.json].")
    ] = None,
    master_port: Annotated[int, typer.Option("--master_port", help="Port on the first host.")] = 29500,
    ssh_port: Annotated[int | None, typer.Option("--ssh_port", help="[default: ssh's own].")] = None,
    as_json: Json = False,
) -> None:
    """Check whether a training will run here or on the hosts of a hostfile, and say what to mend.

    Give it the options of the training. Exit code 1 where something is wrong.
    """
    from model.cluster.doctor import Asked, as_line, examine
    from model.training.engine import read_ds_config

    settings = configured(context, config)
    ds_config = deepspeed_config or shipped("ds_config.json")
    read_ds_config(ds_config, cuda=True)  # what cannot be read here is no host's trouble
    asked = Asked(settings, config, list(_overrides(context)), ds_config, master_port, ssh_port)
    findings = examine(hostfile, asked, lambda finding: None if as_json else print(as_line(finding), flush=True))
    wrong = sum(finding.state == "wrong" for finding in findings)
    result = {"ready": not wrong, "findings": [asdict(finding) for finding in findings]}
    say(result, as_json, [f"{wrong} to mend before the training" if wrong else "ready to train"])
    sys.exit(1 if wrong else 0)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run directory: runs/NAME.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="HTML file [default: report.html in it].")] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="DuckDB file it was trained on [default: where the run found it].")
    ] = None,
    score: Annotated[
        Path | None,
        typer.Option("--score", help="What promoter-bert score --json printed, to show the challenge's score."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a run as one HTML page: settings, data, curves, predictions, residuals."""
    from model.reporting.run_page import STEPS, write_report

    with progress("report", "steps", quiet=as_json) as show:
        written = write_report(run, out, dataset, score, naming(show, STEPS))
    say(asdict(written), as_json, [f"{written.page}: {written.bytes / 1e3:,.0f} kB", *written.missing])


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two run directories or more: runs/ONE runs/OTHER.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="HTML file to write.")] = Path("compare.html"),
    as_json: Json = False,
) -> None:
    """Show several runs side by side as one HTML page: scores, what differs, curves."""
    from model.reporting.compare_page import compare_runs, score_lines

    if len(runs) < 2:
        raise typer.BadParameter("expected two or more; for one run: promoter-bert report", param_hint="RUNS")
    found = compare_runs(runs, out)
    say(asdict(found), as_json, [f"{found.page}: {counted(len(found.runs), 'run')}", *score_lines(found)])


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def relaunch(
    command: Annotated[list[str], typer.Argument(help="The training's own command: deepspeed ... train.py ...")],
    max_restarts: Annotated[int, typer.Option(min=0, help="Restarts in all.")] = 5,
) -> None:
    """Run a training, and start it again where it failed, until it is finished.

    For runs that nobody watches. Processes that are left on any host are ended before each restart, which waits 5 s
    at first and up to 5 minutes; a host that is away is waited for. An error that only you can mend is not tried again.
    """
    from model.cluster.relaunch import relaunch as run

    def tell(text: str) -> None:
        print(f"relaunch: {text}", file=sys.stderr, flush=True)

    sys.exit(run(command, max_restarts, tell))


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit code 0, 1 (the data or the run failed) or 2 (wrong usage); 128 + the signal's number after
    Ctrl-C, and where the reader of our output has gone, as of other programs."""
    given = sys.argv[1:] if arguments is None else arguments
    if "LOCAL_RANK" in os.environ:  # DeepSpeed's launcher says it on the command line, too
        given = [text for text in given if not text.startswith("--local_rank=")]
    ours = [] if given[:1] == ["relaunch"] else given  # what follows there is another program's
    overrides = [text for text in ours if OVERRIDE.match(text)]
    try:
        for text in ours:
            _check_override(text)
        if overrides and given[0] in TAKE_NO_SETTINGS:
            raise UserError(f"{overrides[0]}: {given[0]} goes by no configuration")
        try:
            app(
                [text for text in given if text not in overrides],
                prog_name="promoter-bert",
                obj=Invocation(tuple(overrides), Config),
            )
        except SystemExit:  # so typer ends, well or not
            sys.stdout.flush()  # not later, when nobody catches what comes of it
            raise
    except UserError as error:
        failed(str(error))
    except KeyboardInterrupt:
        interrupted(given)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer has caught Ctrl-C, and said nothing
            interrupted(given)
        if isinstance(end.__context__, BrokenPipeError):  # typer has caught that, too
            not_read()
        raise
    except RuntimeError as error:
        if "Query interrupted" not in str(error):  # how DuckDB passes Ctrl-C on
            raise
        interrupted(given)
    except BrokenPipeError:
        not_read()
    except OSError as error:
        failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def configured(context: typer.Context, path: Path, **given: Any) -> Config:
    """See pipeline.cli.dataset.configured; with the training sections."""
    config = data_configured(context, path, **given)
    assert isinstance(config, Config)
    return config


def _overrides(context: typer.Context) -> tuple[str, ...]:
    return tuple(context.obj.overrides)


def _check_override(text: str) -> None:
    """Raise UserError for a setting without its section, which would be taken for a file."""
    found = BARE_KEY.match(text)
    if found and not Path(text).exists():
        from pipeline.config.loader import sections_with

        names = sections_with(found[1], Config)
        if names:
            raise UserError(f"{text}: the setting's full name is {' or '.join(names)}")
