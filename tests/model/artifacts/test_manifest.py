import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig

from model.artifacts.manifest import Layout, StageProgress, find_corruption, read_manifest, write_manifest
from model.bert.flops import StageCost
from model.training.checkpointing.reshard import check_convertible
from pipeline.errors import UserError

OWNER = {"shards": "a", "settings": "b"}
LAYOUT = Layout(2, 1, "fp32")
PROGRESS = StageProgress(20, 0.5, 10, 1.5, ended=False)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_any_changed_or_missing_byte_is_reported(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "part").mkdir()
    names = ("state.pt", "part/model.safetensors")
    for name in names:
        (folder / name).write_bytes(data.draw(st.binary(min_size=1, max_size=50)))
    assert "manifest.json is missing" in find_corruption(folder)
    write_manifest(folder, OWNER, LAYOUT, PROGRESS)
    assert find_corruption(folder) == find_corruption(folder, "part") == ""
    assert (read_manifest(folder).layout, read_manifest(folder).progress) == (LAYOUT, PROGRESS)
    name = data.draw(st.sampled_from([*names, "manifest.json"]))
    content = bytearray((folder / name).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.sampled_from(["cut", "remove"] if name == "manifest.json" else ["flip", "cut", "remove"]))
    if change == "remove":
        (folder / name).unlink()
    elif change == "cut":
        (folder / name).write_bytes(content[:position] if name != "manifest.json" else content[: position // 2])
    else:
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        (folder / name).write_bytes(content)
    assert name in find_corruption(folder)
    assert find_corruption(folder, "part") == (
        "" if name == "state.pt" else find_corruption(folder).removeprefix("part/")
    )


def test_manifest_of_an_earlier_version_has_no_progress(tmp_path):
    write_manifest(tmp_path, OWNER, LAYOUT, PROGRESS)
    values = json.loads((tmp_path / "manifest.json").read_text())
    del values["standing"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    assert find_corruption(tmp_path) == ""
    assert read_manifest(tmp_path).progress is None


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 1), (1, 1), (2, 2), (3, 3)])
def test_compatible_zero_stages_are_convertible(tmp_path, source, target):
    check_convertible(tmp_path, Layout(2, source, "bf16"), Layout(1, target, "bf16"))


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0), (2, 3), (3, 1)])
def test_incompatible_zero_stages_are_an_error(tmp_path, source, target):
    with pytest.raises(UserError, match=f"2 ranks, ZeRO {source}, bf16; DeepSpeed cannot"):
        check_convertible(tmp_path, Layout(2, source, "bf16"), Layout(1, target, "bf16"))


def test_model_of_the_paper_costs_19_gflop_per_promoter(made):
    """Its layers hold 3 (4 512^2 + 2 512 2048) = 9.4 million weights, with 6 operations per weight and token.

    Three quarters of the last layer's weights are applied to the [CLS] only.
    """
    size = BertConfig(vocab_size=130, hidden_size=512, num_hidden_layers=3, intermediate_size=2048)
    tokens, operations = StageCost(size, 3, None).count(np.array([410]))
    assert tokens == (136 + 136 + 136) + 3 * 2
    attention = 3 * 3 * 4 * 138**2 * 512 * 3
    heads = 3 * 3 * 2 * (512**2 + 512)
    unread = 6 * (512**2 + 2 * 512 * 2048) * (tokens - 3)
    assert operations == pytest.approx(6 * 9_437_184 * tokens + attention + heads - unread)
    assert operations == pytest.approx(18.6e9, rel=0.02)
    overlapping, _ = StageCost(size, 3, None, overlapping=True).count(np.array([410]))
    assert overlapping == 408 + 2
    _, frozen = StageCost(size, 3, None, frozen=True).count(np.array([410]))
    assert frozen == pytest.approx((operations - heads) / 3 + heads)


def test_pretraining_costs_less_if_the_plasmid_is_not_masked():
    """The difference is the rest of the last layer and the head, for 15 % of the 100 k-mers of the plasmid."""
    size = BertConfig(vocab_size=130, hidden_size=512, num_hidden_layers=3, intermediate_size=2048)
    (_, whole), (_, insert) = (StageCost(size, 3, 0.15, never_masked=n).count(np.array([410])) for n in (0, 300))
    read = 3 * 2 * (512**2 + 2 * 512 * 2048) + 3 * 2 * (512**2 + 512 * 130)
    assert whole - insert == pytest.approx(0.15 * 100 * read)
