"""Files of a run directory: corrupt records, leftovers of killed processes, and other settings."""

import json
import os
import re
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from model.artifacts.manifest import Manifest, StageProgress, put_manifest
from model.runs.directory import CHANGEABLE_SETTINGS, FIXED_DS_SETTINGS, open_run
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from tests.conftest import ROOT, small_config
from tests.model.runs.trainer import PRODUCTS, cut, run_suggested_fix, weights

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"config": 1, "shard_key": 2}'])
@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_empty_or_corrupt_records_are_reported(trainer, finished, run, name, text):
    scores = json.loads((run / "summary.json").read_text())["scores"]
    (run / name).write_text(text)
    with pytest.raises(UserError, match=rf"runs/paper/{name}: (empty|corrupt).*expected the JSON object") as error:
        trainer.train()
    if text == "{":
        run_suggested_fix(error)
        assert trainer.train()["scores"] == scores
        assert json.loads((run / name).read_text())
        assert weights(run) == weights(finished)


def test_suggested_fix_restores_corrupt_predictions(trainer, run):
    before = (run / "predictions.parquet").read_bytes()
    cut(run / "predictions.parquet")
    with pytest.raises(UserError, match=r"predictions.parquet: the predictions cannot be read") as error:
        trainer.train()
    run_suggested_fix(error)
    trainer.train()
    assert (run / "predictions.parquet").read_bytes() == before


def test_only_partial_files_of_killed_processes_are_removed(trainer, run):
    for name in (".model.123.partial", ".pretrained.partial", ".model.old"):
        shutil.copytree(run / "model", run / name)
    (run / ".host-1.partial.summary.json").write_text("{")
    kept = (run / ".host-2.partial.mine.tsv", run / "notes.partial")
    for path in kept:
        path.write_text("for example a prediction in progress")
    (run / "metrics.jsonl").open("ab").write(b"\xff\n5\n{}\n")
    trainer.train()
    hidden = {path.name for path in run.iterdir() if "partial" in path.name or path.name.endswith(".old")}
    assert hidden == {path.name for path in kept}


def test_run_resumes_only_with_its_configuration_and_shards(made, tmp_path):

    index = read_index(made.shards)
    config = small_config(tmp_path)
    lock = open_run(config, index, {})
    with pytest.raises(UserError, match=rf"process {os.getpid()} is training in"):
        open_run(config, index, {})
    lock.close()
    open_run(small_config(tmp_path, "finetune.max_epochs=9", "run.keep_checkpoints=1"), index, {}).close()
    check_recorded(config.run.directory, 9, [{"finetune.max_epochs": [1, 9], "run.keep_checkpoints": [2, 1]}])
    open_run(small_config(tmp_path, "finetune.max_epochs=9", "run.keep_checkpoints=1"), index, {}).close()
    changed = {"ds_config.zero_optimization.stage": [None, 2], "finetune.max_epochs": [9, 1]}
    ds_config = {"zero_optimization": {"stage": 2}}
    open_run(small_config(tmp_path, "run.keep_checkpoints=1"), index, ds_config).close()
    check_recorded(config.run.directory, 1, [{"finetune.max_epochs": [1, 9], "run.keep_checkpoints": [2, 1]}, changed])
    with pytest.raises(
        UserError, match=r"pretrain.learning_rate: 0.001 -> 0.002\).* use pretrain.learning_rate=0.001;"
    ):
        open_run(small_config(tmp_path, "pretrain.learning_rate=2e-3"), index, {})
    with pytest.raises(UserError, match="other shards"):
        open_run(config, replace(index, key="another"), {})
    with pytest.raises(UserError, match=r"\(shards\.k: 3 -> 4, shard key: \w+ -> another\).* use shards\.k=3;"):
        open_run(small_config(tmp_path, "shards.k=4"), replace(index, key="another"), {})
    with pytest.raises(
        UserError, match=r"\(other rows in the dataset, shard key: .*\); fix: .*run\.name=OTHER.*remove"
    ):
        open_run(config, replace(index, key="another", dataset_key="another"), {})
    assert (config.run.directory / "config.yaml").exists()


def test_ended_stages_keep_their_length_and_the_clipping_stays(made, tmp_path):
    """The message has the setting of the ended stage, with which the same command is accepted."""
    index, clipped = read_index(made.shards), {"gradient_clipping": 1.0}
    config = small_config(tmp_path, "pretrain.max_epochs=2")
    folder = config.run.directory
    open_run(config, index, clipped).close()
    with pytest.raises(UserError, match=r"ds_config\.gradient_clipping: 1 -> 0\.5"):
        open_run(config, index, {"gradient_clipping": 0.5})
    (folder / "pretrained").mkdir()
    for ended in (False, True):
        put_manifest(folder / "pretrained", Manifest({}, None, StageProgress(9, 0.5, 4, 1.0, ended), {}))
        longer = small_config(tmp_path, f"pretrain.max_epochs={3 + ended}", "finetune.max_epochs=4")
        if ended:
            with pytest.raises(UserError, match="stage pretrain has ended") as error:
                open_run(longer, index, clipped)
            (override,) = re.findall(r" use (pretrain\S+);", str(error.value))
            open_run(small_config(tmp_path, override, "finetune.max_epochs=4"), index, clipped).close()
        else:
            open_run(longer, index, clipped).close()
    check_recorded(folder, 4, [{"pretrain.max_epochs": [2, 3], "finetune.max_epochs": [1, 4]}])


def test_settings_that_a_dump_omits_are_compared(made, tmp_path):
    """A setting at its default is omitted from run.json; adding it and removing it are both changes."""
    index, changed = read_index(made.shards), ("finetune.random_n=0.1", "run.deterministic=true")
    for name, first, then, text in (
        ("one", changed, (), r"random_n: 0\.1 -> 0[^.]"),
        ("two", (), changed, r"random_n: 0 -> 0\.1"),
    ):
        config = small_config(tmp_path, f"run.name={name}", *first)
        open_run(config, index, {}).close()
        with pytest.raises(UserError, match=text) as error:
            open_run(small_config(tmp_path, f"run.name={name}", *then), index, {})
        undone = re.search(r" use (.*?); otherwise", str(error.value))[1].split()
        open_run(small_config(tmp_path, f"run.name={name}", *then, *undone), index, {}).close()
        recorded = json.loads((config.run.directory / "run.json").read_text())
        assert (recorded["config"], recorded.get("history")) == (config.model_dump(), None)
    with pytest.raises(UserError, match=r"gradient_clipping: 0 -> 1\)"):
        open_run(small_config(tmp_path, "run.name=two"), index, {"gradient_clipping": 1.0})


def test_settings_that_may_change_on_a_resume_are_documented():
    text = (ROOT / "docs" / "training.md").read_text()
    listed = text[text.index("These settings may change") : text.index("All other settings are refused")]
    names = [name for name in re.findall(r"`([a-z_.]+)`", listed) if "." in name and not name.endswith(".json")]
    assert sorted(names) == sorted(CHANGEABLE_SETTINGS)
    assert all(name.removeprefix("ds_config.") in text for name in FIXED_DS_SETTINGS)


def check_recorded(run, max_epochs, changes):
    """The run directory holds the settings of the last start, and the changes of each resume."""
    recorded = json.loads((run / "run.json").read_text())
    assert recorded["config"] == yaml.safe_load((run / "config.yaml").read_text())
    assert recorded["config"]["finetune"]["max_epochs"] == max_epochs
    assert [resume["changes"] for resume in recorded["history"]] == changes


def test_transformers_4_can_load_the_tokenizer_class(run):
    """Transformers 5 writes the class name TokenizersBackend by default, which 4 cannot load."""
    for name in PRODUCTS.values():
        settings = json.loads((run / name / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert AutoTokenizer.from_pretrained(run / name).mask_token == "[MASK]"


def test_compilation_is_announced_before_the_first_step(trainer, empty, capfd):
    """Compilation itself is switched off in this test."""
    with torch._dynamo.config.patch(disable=True):
        trainer.train("model.compile=true", stages="pretrain")
    lines = capfd.readouterr().err.splitlines()
    (position,) = [i for i, line in enumerate(lines) if line.startswith("pretrain: compiling the training step")]
    assert not any("step" in line for line in lines[:position])
