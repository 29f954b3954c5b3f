"""A finished run that was not trained: see run_fixtures."""

import pytest

from tests.model.run_fixtures import finish, log, start


@pytest.fixture(scope="session")
def finished_run(made, tmp_path_factory):
    folder = start(made, tmp_path_factory.mktemp("run"), "run.name=first")
    log(folder)
    finish(made, folder)
    return folder
