"""Model folders from elsewhere: loaded, or an error that names the file; no file outside the folder is read."""

import copy
import json
import re

import pytest

from model import load_config
from model.artifacts.manifest import find_corruption, read_manifest
from model.artifacts.model_directory import read_model_facts
from model.bert.build import load_regression_model
from pipeline.errors import UserError
from pipeline.paths import ROOT
from tests.model.saved_model import save_model


@pytest.fixture(scope="module")
def assay():
    return load_config(ROOT / "config.yaml").assay


@pytest.fixture
def folder(tmp_path, assay):
    return save_model(tmp_path / "model", assay)


def change(folder, place, value):
    """Replace one value in config.json; None removes it."""
    values = json.loads((folder / "config.json").read_text())
    *parents, last = place
    parent = values
    for name in parents:
        parent = parent[name]
    parent.pop(last, None)
    if value is not None:
        parent[last] = copy.deepcopy(value)
    (folder / "config.json").write_text(json.dumps(values))


FACTS = [
    (("promoter_bert",), "promoter_bert", "model"), (("promoter_bert",), [1], "promoter_bert"),
    (("promoter_bert",), "x", "promoter_bert"), (("promoter_bert", "k"), None, "promoter_bert.k"),
    (("promoter_bert", "k"), "3", "promoter_bert.k"), (("promoter_bert", "k"), 10**30, "promoter_bert.k"),
    (("promoter_bert", "k"), 4, "vocab_size: expected"), (("promoter_bert", "tokens"), "x", "promoter_bert.tokens"),
    (("promoter_bert", "assay"), {}, "promoter_bert.assay."),
    (("promoter_bert", "assay", "upstream"), "../../etc/passwd", "promoter_bert.assay.upstream"),
    (("promoter_bert", "assay", "flank"), 1.5, "promoter_bert.assay.flank"),
    (("promoter_bert", "assay", "max_insert"), 10**6, "max_position_embeddings: expected at least"),
    (("max_position_embeddings",), 8, "max_position_embeddings: expected at least"),
    (("vocab_size",), "x", "vocab_size: expected"), (("num_hidden_layers",), 0, "num_hidden_layers: expected"),
    (("architectures",), ["../x"], "pretrained only"),
]  # fmt: skip
MODERNBERT = [
    (("model_type",), "bert", "model_type: expected modernbert"),
    (("local_attention",), None, "local_attention: expected"), (("local_attention",), 0, "local_attention: expected"),
    (("global_attn_every_n_layers",), 0, "global_attn_every_n_layers: expected at least 1"),
    (("global_attn_every_n_layers",), "x", "global_attn_every_n_layers: expected at least 1"),
    (("global_attn_every_n_layers",), 1, "layer_types: expected global layers every 1"),
    (("layer_types",), "x", "layer_types: expected"), (("classifier_pooling",), "cls", "classifier_pooling: expected"),
]  # fmt: skip
WEIGHTS = [
    (("hidden_size",), 0), (("hidden_size",), 10**30), (("num_attention_heads",), "x"), (("hidden_act",), "evil"),
    (("dtype",), "evil"), (("dtype",), [1]), (("quantization_config",), {"a": 1}), (("id2label",), "x"),
    (("type_vocab_size",), -1), (("hidden_dropout_prob",), -1), (("_attn_implementation",), "../../etc/passwd"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), FACTS)
def test_invalid_facts_are_named(folder, place, value, message):
    change(folder, place, value)
    with pytest.raises(UserError, match=re.escape(message)):
        read_model_facts(folder)


@pytest.mark.parametrize(("place", "value", "message"), MODERNBERT)
def test_settings_with_which_a_modernbert_would_predict_other_values_are_named(tmp_path, assay, place, value, message):
    folder = save_model(tmp_path / "model", assay, modernbert=True)
    read_model_facts(folder)
    change(folder, place, value)
    with pytest.raises(UserError, match=re.escape(message)):
        read_model_facts(folder)


@pytest.mark.parametrize(("place", "value"), WEIGHTS)
def test_model_that_cannot_be_built_is_an_error(folder, place, value):
    change(folder, place, value)
    with pytest.raises(UserError, match="the model cannot be loaded"):
        load_regression_model(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", '"promoter_bert"', "[" * 100_000, "\ud800"])
def test_config_that_is_no_object_is_an_error(folder, text):
    (folder / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match=r"config\.json|not a model"):
        read_model_facts(folder)


def test_runs_with_a_model_are_listed_if_their_parent_is_given(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").touch()
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(UserError) as error:
        read_model_facts(tmp_path)
    assert str(error.value).endswith(f"; runs with a model: {tmp_path}/a, {tmp_path}/b")


def test_files_outside_the_folder_are_not_read(folder, tmp_path):
    """An adapter and an index of weights name other files; a pickle could run code."""
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(UserError, match=r"adapter_config\.json: .*fix: remove it"):
        load_regression_model(folder)
    (folder / "adapter_config.json").unlink()
    (folder / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"metadata": {}, "weight_map": {"classifier.bias": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        load_regression_model(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"../secret": [6, "0" * 64]}, {"/etc/passwd": [6, "0" * 64]}, {"config.json": [6]}, {"config.json": 3},
        {"config.json": ["6", "0" * 64]}, [["config.json", 6]], "config.json", None,
    ],
)  # fmt: skip
def test_manifest_of_other_files_is_invalid(folder, files):
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "manifest.json").write_text(json.dumps({"owner": {}, "layout": None, "files": files}))
    assert read_manifest(folder) is None
    assert "manifest.json is missing or cannot be read" in find_corruption(folder)
    with pytest.raises(UserError, match="the model is corrupt"):
        read_model_facts(folder)
