"""Study of scores: BERT with and without pretraining, a CNN and ridge regression, three seeds each.

    python -m bench.quality.study yeast.tsv                           sizes and choices; some hours on two cores
    python -m bench.quality.study yeast.tsv --dream noisy.parquet     also 500,000 promoters with the noise of the assay
    ... --plant plant.tsv                                             also plant promoters, on five random splits
    ... --test test_sequences.txt --labels public_leaderboard_ids     also scores on public rows of the challenge
    ... --jobs 2 --only sizes choices                                 two trials at a time, of these studies only
    ... --only presets --sizes 8000 --splits random                   some trials of a study

Finished trials in --work FOLDER (default quality/) are not repeated; use another folder after a change of quality.yaml.
All results so far are merged into bench/quality/quality.json, from which `python -m bench.quality.tables` makes the
tables and the plot of docs/results.md. trials.py lists the trials; quality.yaml holds the model and its training.
"""

import argparse
import json
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure import COMMAND, module, run_json
from bench.parallel import TRAIN, run_parallel, run_single_threaded
from bench.quality.trials import SPLITS, Trial, trials
from pipeline.paths import ROOT

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "quality.yaml"
STUDIES = ("sizes", "presets", "overlap", "spans", "ablations", "plant", "choices", "dream")


class Studio:
    """Runner of trials. files: rows by the name of their key; work: folder of all output; test, labels: public rows."""

    def __init__(self, files: dict[str, Path], work: Path, test: Path | None, labels: Path | None) -> None:
        self.files, self.work, self.test, self.labels = files, work, test, labels
        self.building = threading.Lock()

    def result(self, trial: Trial) -> None:
        """Run a trial and save its result, unless a result for the same rows and settings exists."""
        path = self.path(trial)
        facts = {name: getattr(trial, name) for name in ("study", "rows", "split", "seed", "size", "variant")}
        facts |= {"settings": list(trial.settings), "bytes": self.files[trial.rows].stat().st_size}
        result = json.loads(path.read_text()) if path.exists() else {}
        if not facts.items() <= result.items():
            start = time.monotonic()
            result = {**facts, **self.run(trial, self.places(trial)), "seconds": round(time.monotonic() - start)}
        if trial.rows == "dream" and trial.method == "bert" and self.test and self.labels and "public" not in result:
            result["public"] = self.public(self.work / "runs" / trial.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)

    def path(self, trial: Trial) -> Path:
        """Return the path of a trial's result."""
        return self.work / "results" / f"{trial.name}.json"

    def places(self, trial: Trial) -> list[str]:
        """Build the dataset and shards of a trial, unless they exist, and return their settings."""
        values = (setting.partition("=")[2] for setting in trial.data)
        name = "-".join(filter(None, (trial.preset, trial.rows, *values)))
        data = [f"dataset.path={self.work / name}.duckdb", f"shards.path={self.work / name}-shards", *trial.data]
        config = ("--config", str(config_of(trial)))
        with self.building:
            run_single_threaded((COMMAND, "build", str(self.files[trial.rows]), *config, *data))
            run_single_threaded((COMMAND, "shards", *config, *data))
        return data

    def run(self, trial: Trial, data: list[str]) -> dict[str, Any]:
        """Train a trial's model and return its scores."""
        if trial.method == "ridge":
            return run_json(module("quality.ridge", data[0].partition("=")[2], "--json"))
        if trial.method == "cnn":
            (shards,), seed = Path(data[1].partition("=")[2]).glob("k*/"), str(trial.seed)
            arguments = (str(shards), "--size", "small", "--seed", seed, *trial.options, "--json")
            result = run_json(module("quality.cnn", *arguments))
            names = ("pearson", "spearman", "both_pearson", "both_spearman", "epochs", "parameters")
            return {name: result[name] for name in names if result[name] is not None}
        config = ("--config", str(config_of(trial)), *data, f"run.seed={trial.seed}", *trial.options)
        run = self.work / "runs" / trial.name
        start = (f"finetune.pretrained={self.work / 'runs' / trial.start / 'pretrained'}",) if trial.start else ()
        place = (f"run.name={trial.name}", f"run.path={run.parent}")
        run_single_threaded((sys.executable, TRAIN, *config, *place, *start, "--stage", trial.stages))
        if trial.stages == "pretrain":
            values = [json.loads(line) for line in (run / "metrics.jsonl").open()]
            best = min((value for value in values if "valid_loss" in value), key=lambda value: value["valid_loss"])
            return {"insert_accuracy": best["valid_insert_accuracy"]}
        summary = json.loads((run / "summary.json").read_text())
        result = {name: summary["scores"]["test"][name] for name in ("pearson", "spearman")}
        result |= {"masked": summary["masked"]} if summary["masked"] else {}
        if summary["config"]["finetune"]["reverse_complement"]:
            result |= self.both_strands(run, Path(data[0].partition("=")[2]))
        return result

    def both_strands(self, run: Path, dataset: Path) -> dict[str, float]:
        """Score the mean prediction over both strands of the test promoters."""
        from scipy.stats import pearsonr, spearmanr

        from pipeline.dataset.database import open_dataset

        with open_dataset(dataset) as connection:
            rows = connection.execute(
                "select sequence, expression from finetune where split = 'test' order by position"
            ).fetchall()
        rows_file, out = run / "test.tsv", run / "test-both-strands.tsv"
        rows_file.write_text("".join(f"{sequence}\t{label}\n" for sequence, label in rows))
        run_single_threaded((COMMAND, "predict", str(run / "model"), str(rows_file), "-o", str(out), "--both-strands"))
        predictions = [float(line.rpartition("\t")[2]) for line in out.read_text().splitlines()]
        labels = [label for _, label in rows]
        r, rho = pearsonr(predictions, labels).statistic, spearmanr(predictions, labels).statistic
        return {"both_pearson": float(r), "both_spearman": float(rho)}

    def public(self, run: Path) -> dict[str, Any]:
        """Compute the DREAM Challenge score on the public rows."""
        assert self.test is not None
        assert self.labels is not None
        out = run / "test_sequences.tsv"
        run_single_threaded((COMMAND, "predict", str(run / "model"), str(self.test), "-o", str(out)))
        labels = ("--labels", str(self.labels / "ground.json"), "--subsets", str(self.labels))
        return run_json((COMMAND, "score", str(out), *labels, "--test", str(self.test), "--json"))


def merge_results(file: Path, paths: list[Path]) -> None:
    """Write the results of the trials into a file, in the order of the trials; other results in it are kept."""
    known = json.loads(file.read_text()) if file.exists() else []
    known += [json.loads(path.read_text()) for path in paths if path.exists()]
    names = ("study", "rows", "split", "seed", "size", "variant")
    places = {tuple(getattr(trial, name) for name in names): place for place, trial in enumerate(trials())}
    latest = {tuple(result[name] for name in names): json.dumps(result) for result in known}
    ordered = sorted((key for key in latest if key in places), key=places.__getitem__)
    file.write_text("[\n" + ",\n".join(latest[key] for key in ordered) + "\n]\n")


def config_of(trial: Trial) -> Path:
    """Return the configuration file of a trial."""
    return ROOT / "configs" / f"{trial.preset}.yaml" if trial.preset else CONFIG


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("yeast", type=Path, help="measured promoters with precise labels")
    cli.add_argument("--dream", type=Path, help="500,000 promoters with noisy labels; default: none")
    cli.add_argument("--plant", type=Path, help="plant promoters of 170 bases; default: none")
    cli.add_argument("--test", type=Path, help="the challenge's test_sequences.txt")
    cli.add_argument("--labels", type=Path, help="folder of the public leaderboard's labels and subsets")
    cli.add_argument("--work", type=Path, default=Path("quality"), help="default: quality")
    cli.add_argument("--jobs", type=int, default=1, help="parallel trials, one thread each; default: 1")
    cli.add_argument("--only", nargs="*", choices=STUDIES, default=STUDIES, help="studies; default: all")
    cli.add_argument(
        "--without", nargs="*", choices=("ridge", "bert", "cnn"), default=(), help="methods to omit; default: none"
    )
    cli.add_argument("--sizes", type=int, nargs="*", help="only trials with these training rows; default: all")
    cli.add_argument("--splits", nargs="*", choices=SPLITS, default=SPLITS, help="kinds of splits; default: both")
    args = cli.parse_args()
    named = {"yeast": args.yeast, "dream": args.dream, "plant": args.plant}
    files = {name: path.resolve() for name, path in named.items() if path}
    studio = Studio(files, args.work.resolve(), args.test, args.labels)
    selected = [
        trial
        for trial in trials()
        if trial.rows in files
        and trial.study in args.only
        and trial.method not in args.without
        and trial.split in args.splits
        and (not args.sizes or trial.size in args.sizes)
    ]
    starts = {trial.start for trial in selected}
    try:
        for each in ([trial for trial in trials() if trial.name in starts], selected):
            run_parallel(args.jobs, {trial.name: partial(studio.result, trial) for trial in each})
    finally:
        merge_results(HERE / "quality.json", [studio.path(trial) for trial in trials()])


if __name__ == "__main__":
    main()
