"""Commands in the fixes of errors: they keep the configuration file and the overrides of the user."""

from types import SimpleNamespace

import pytest

from pipeline.cli.command_types import Invocation
from pipeline.cli.options import configuration
from pipeline.config.loader import load_data_config
from pipeline.dataset.splits.split_leaks import examine_dataset
from pipeline.errors import UserError
from pipeline.reporting.dataset_page import write_stats
from pipeline.shards.write import write_shards
from tests.conftest import ROOT


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A configuration file whose dataset does not exist."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "fresh.yaml"
    file.write_text(f"base: {ROOT / 'config.yaml'}\ndataset: {{path: fresh.duckdb}}\n")
    return file


def test_a_missing_dataset_is_built_with_the_settings_of_the_user(fresh):
    config = load_data_config(fresh, ["assay.max_insert=80", "shards.k=4", "dataset.seed=3"])
    assert config.build_command == f"promoter-bert build FILE --config {fresh} assay.max_insert=80 dataset.seed=3"
    for command in (
        lambda: write_shards(config),
        lambda: examine_dataset(config.dataset.path, build_command=config.build_command),
        lambda: write_stats(config.dataset.path, "stats.html", build_command=config.build_command),
    ):
        with pytest.raises(UserError) as error:
            command()
        assert str(error.value).endswith(f"; fix: {config.build_command}")


@pytest.mark.parametrize("name", ["other.duckdb", "a b.duckdb", "12", "null", "x # y"])
def test_options_in_a_fix_load_the_same_settings(fresh, name):
    """The options of a command become overrides."""
    config = configuration(SimpleNamespace(obj=Invocation()), fresh, dataset__path=name, shards__k=5)
    assert (config.dataset.path, config.shards.k) == (name, 5)
    assert load_data_config(fresh, config._applied_overrides) == config
    if name == "other.duckdb":
        assert config.build_command == f"promoter-bert build FILE --config {fresh} dataset.path=other.duckdb"
