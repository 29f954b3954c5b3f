import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig

from model.artifacts.manifest import Layout, StageProgress, find_damage, read_manifest, write_manifest
from model.bert.flops import StageCost
from model.training.checkpointing.reshard import check_convertible
from pipeline.errors import UserError

OWNER = {"shards": "a", "settings": "b"}
LAYOUT = Layout(2, 1, "fp32")
STANDING = StageProgress(20, 0.5, 10, 1.5, ended=False)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_any_wrong_or_missing_byte_is_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "part").mkdir()
    names = ("state.pt", "part/model.safetensors")
    for name in names:
        (folder / name).write_bytes(data.draw(st.binary(min_size=1, max_size=50)))
    assert "manifest.json is missing" in find_damage(folder)
    write_manifest(folder, OWNER, LAYOUT, STANDING)
    assert find_damage(folder) == find_damage(folder, "part") == ""
    assert (read_manifest(folder).layout, read_manifest(folder).progress) == (LAYOUT, STANDING)
    name = data.draw(st.sampled_from([*names, "manifest.json"]))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["cut", "gone"] if name == "manifest.json" else ["flip", "cut", "gone"]))
    if how == "gone":
        (folder / name).unlink()
    elif how == "cut":
        (folder / name).write_bytes(content[:place] if name != "manifest.json" else content[: place // 2])
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        (folder / name).write_bytes(content)
    assert name in find_damage(folder)
    assert find_damage(folder, "part") == ("" if name == "state.pt" else find_damage(folder).removeprefix("part/"))


def test_a_manifest_of_before_says_nothing_of_the_stage(tmp_path):
    write_manifest(tmp_path, OWNER, LAYOUT, STANDING)
    values = json.loads((tmp_path / "manifest.json").read_text())
    del values["standing"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    assert find_damage(tmp_path) == ""
    assert read_manifest(tmp_path).progress is None


@pytest.mark.parametrize(("written", "wanted"), [(1, 2), (2, 1), (1, 1), (2, 2), (3, 3)])
def test_zero_stages_that_read_each_other(tmp_path, written, wanted):
    check_convertible(tmp_path, Layout(2, written, "bf16"), Layout(1, wanted, "bf16"))


@pytest.mark.parametrize(("written", "wanted"), [(0, 1), (1, 0), (2, 3), (3, 1)])
def test_zero_stages_that_do_not_are_refused(tmp_path, written, wanted):
    with pytest.raises(UserError, match=f"was written by 2 ranks, ZeRO {written}, bf16; DeepSpeed cannot"):
        check_convertible(tmp_path, Layout(2, written, "bf16"), Layout(1, wanted, "bf16"))


def test_the_papers_model_costs_19_gflop_a_promoter(made):
    """Its layers hold 3 (4 512^2 + 2 512 2048) = 9.4 million weights: 6 operations for each and for each token, but for
    three quarters of the last layer, of which only the [CLS] is read."""
    size = BertConfig(vocab_size=130, hidden_size=512, num_hidden_layers=3, intermediate_size=2048)
    tokens, operations = StageCost(size, 3, None).of(np.array([410]))
    assert tokens == (136 + 136 + 136) + 3 * 2
    attention = 3 * 3 * 4 * 138**2 * 512 * 3
    heads = 3 * 3 * 2 * (512**2 + 512)
    unread = 6 * (512**2 + 2 * 512 * 2048) * (tokens - 3)
    assert operations == pytest.approx(6 * 9_437_184 * tokens + attention + heads - unread)
    assert operations == pytest.approx(18.6e9, rel=0.02)
    overlapping, _ = StageCost(size, 3, None, overlapping=True).of(np.array([410]))
    assert overlapping == 408 + 2
    _, frozen = StageCost(size, 3, None, frozen=True).of(np.array([410]))
    assert frozen == pytest.approx((operations - heads) / 3 + heads)


def test_pretraining_costs_less_where_the_plasmid_is_not_masked():
    """What is left out is the rest of the last layer and the head, of 15 % of the plasmid's 100 k-mers."""
    size = BertConfig(vocab_size=130, hidden_size=512, num_hidden_layers=3, intermediate_size=2048)
    (_, whole), (_, insert) = (StageCost(size, 3, 0.15, never_masked=n).of(np.array([410])) for n in (0, 300))
    read = 3 * 2 * (512**2 + 2 * 512 * 2048) + 3 * 2 * (512**2 + 512 * 130)
    assert whole - insert == pytest.approx(0.15 * 100 * read)
