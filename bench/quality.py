"""How good: the BERT with and without pretraining beside ridge and a CNN, three seeds, on measured and noisy promoters.

    python bench/quality.py yeast.tsv                             sizes and choices, some hours on two cores
    python bench/quality.py yeast.tsv --dream noisy.parquet       and 500,000 promoters with the assay's noise
    ... --test test_sequences.txt --labels public_leaderboard_ids     their models scored on the challenge's public rows
    ... --jobs 2 --only sizes choices                             two trials at a time, of these studies

What is done already is not done again (--work FOLDER, default quality/). Writes every number into bench/quality.json,
from which `python bench/quality_tables.py` makes the tables and the plot of docs/results.md. The trials:
quality_trials.py; the model and its training: quality.yaml.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from quality_trials import Trial, trials

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "quality.yaml"
COMMAND = str(Path(sys.executable).with_name("promoter-bert"))
STUDIES = ("pretraining", "sizes", "choices", "dream")


class Studio:
    """Where trials are run. files: what `yeast` and `dream` stand for; work: folder for all that is made."""

    def __init__(self, files: dict[str, Path], work: Path, test: Path | None, labels: Path | None) -> None:
        self.files, self.work, self.test, self.labels = files, work, test, labels
        self.building = threading.Lock()

    def result(self, trial: Trial) -> dict[str, Any]:
        """Of a trial that is run now, or was before."""
        path = self.work / "results" / f"{trial.name}.json"
        if not path.exists():
            began = time.monotonic()
            found = self.run(trial, self.places(trial))
            facts = {name: getattr(trial, name) for name in ("study", "rows", "split", "seed", "size", "variant")}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**facts, **found, "seconds": round(time.monotonic() - began)}) + "\n")
            print(f"{trial.name}: {found}", flush=True)
        return json.loads(path.read_text())

    def places(self, trial: Trial) -> list[str]:
        """The settings of a trial's dataset and shards, which are made where they are not there."""
        name = "-".join((trial.rows, *(setting.partition("=")[2] for setting in trial.data)))
        data = [f"dataset.path={self.work / name}.duckdb", f"shards.path={self.work / name}-shards", *trial.data]
        with self.building:
            self.call(COMMAND, "build", str(self.files[trial.rows]), "--config", str(CONFIG), *data)
            self.call(COMMAND, "shards", "--config", str(CONFIG), *data)
        return data

    def run(self, trial: Trial, data: list[str]) -> dict[str, Any]:
        """Train and score."""
        if trial.method == "ridge":
            return self.call(sys.executable, str(HERE / "ridge.py"), data[0].partition("=")[2], "--json")
        if trial.method == "cnn":
            shards, seed = data[1].partition("=")[2], str(trial.seed)
            command = (str(HERE / "cnn.py"), f"{shards}/k3", "--size", "small", "--seed", seed, *trial.options)
            found = self.call(sys.executable, *command, "--json")
            return {name: found[name] for name in ("pearson", "spearman", "epochs", "parameters")}
        config = ("--config", str(CONFIG), *data, f"run.seed={trial.seed}", *trial.settings)
        run = self.work / "runs" / trial.name
        start = (f"finetune.pretrained={self.work / 'runs' / trial.start / 'pretrained'}",) if trial.start else ()
        names = (f"run.name={trial.name}", f"run.path={run.parent}")
        train = (sys.executable, str(HERE.parent / "train.py"))
        self.call(*train, *config, *names, *start, "--stage", trial.stages)
        if trial.stages == "pretrain":
            values = [json.loads(line) for line in (run / "metrics.jsonl").open()]
            return {"insert_accuracy": max(value.get("valid_insert_accuracy", 0) for value in values)}
        summary = json.loads((run / "summary.json").read_text())
        found = {name: summary["scores"]["test"][name] for name in ("pearson", "spearman")}
        found |= {"masked": summary["masked"]} if summary["masked"] else {}
        if trial.variant == "two-strands":
            found |= self.both_strands(run, Path(data[0].partition("=")[2]))
        if trial.rows == "dream" and self.test and self.labels:
            found["public"] = self.public(run)
        return found

    def both_strands(self, run: Path, dataset: Path) -> dict[str, float]:
        """The mean of the predictions for both strands of the test promoters."""
        from scipy.stats import pearsonr, spearmanr

        from pipeline.database import reading

        with reading(dataset) as connection:
            rows = connection.execute(
                "select sequence, expression from finetune where split = 'test' order by position"
            ).fetchall()
        given, out = run / "test.tsv", run / "test-both-strands.tsv"
        given.write_text("".join(f"{sequence}\t{label}\n" for sequence, label in rows))
        self.call(COMMAND, "predict", str(run / "model"), str(given), "-o", str(out), "--both-strands")
        predictions = [float(line.rpartition("\t")[2]) for line in out.read_text().splitlines()]
        labels = [label for _, label in rows]
        r, rho = pearsonr(predictions, labels).statistic, spearmanr(predictions, labels).statistic
        return {"both_pearson": float(r), "both_spearman": float(rho)}

    def public(self, run: Path) -> dict[str, Any]:
        """The challenge's score on the public rows, by subset."""
        out = run / "test_sequences.tsv"
        self.call(COMMAND, "predict", str(run / "model"), str(self.test), "-o", str(out))
        labels = ("--labels", str(self.labels / "ground.json"), "--subsets", str(self.labels))
        return self.call(COMMAND, "score", str(out), *labels, "--test", str(self.test), "--json")

    def call(self, *command: str) -> dict[str, Any]:
        """Run a command on one thread. Gives what it printed, where that is JSON."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        return json.loads(done.stdout) if command[-1] == "--json" else {}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("yeast", type=Path, help="measured promoters with labels of little noise")
    cli.add_argument("--dream", type=Path, help="500,000 promoters with noisy labels")
    cli.add_argument("--test", type=Path, help="the challenge's test_sequences.txt")
    cli.add_argument("--labels", type=Path, help="folder of the public leaderboard's labels and subsets")
    cli.add_argument("--work", type=Path, default=Path("quality"), help="default: quality")
    cli.add_argument("--jobs", type=int, default=1, help="trials at a time, a thread each; default: 1")
    cli.add_argument("--only", nargs="*", choices=STUDIES, default=STUDIES, help="studies; default: all")
    cli.add_argument("--without", nargs="*", choices=("ridge", "bert", "cnn"), default=(), help="methods left out")
    args = cli.parse_args()
    files = {"yeast": args.yeast, **({"dream": args.dream} if args.dream else {})}
    studio = Studio({name: path.resolve() for name, path in files.items()}, args.work.resolve(), args.test, args.labels)
    wanted = [t for t in trials() if t.rows in files and t.study in (*args.only, "pretraining")]
    done: dict[str, Future[dict[str, Any]]] = {}

    def after(trial: Trial) -> dict[str, Any]:
        if trial.start:
            done[trial.start].result()
        return studio.result(trial)

    with ThreadPoolExecutor(args.jobs) as pool:
        for trial in wanted:
            if trial.method not in args.without:
                done[trial.name] = pool.submit(after, trial)
        found = [future.result() for future in done.values()]
    (HERE / "quality.json").write_text("[\n" + ",\n".join(json.dumps(each) for each in found) + "\n]\n")


if __name__ == "__main__":
    main()
