import os
import subprocess
import sys

import torch

from model.muon.compilation import VARIABLE, torch_compile
from tests.conftest import ROOT


def make_counter():
    """Return a compiled function, and the list of graphs that its backend has been given."""
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    return torch.compile(lambda values: values.sin() + 1, backend=backend), graphs


def test_functions_compiled_before_the_block_run_uncompiled_in_it():
    function, graphs = make_counter()
    values = torch.arange(3.0)
    with torch_compile(False):
        inside = function(values)
    assert graphs == []
    with torch_compile(True):
        outside = function(values)
    assert len(graphs) == 1
    assert torch.equal(inside, outside)


def test_functions_compiled_in_the_block_stay_as_they_are():
    with torch_compile(False):
        function, graphs = make_counter()
    function(torch.arange(3.0))
    assert graphs == []


def test_the_environment_is_restored(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with torch_compile(False):
        assert os.environ[VARIABLE] == "1"
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "0")
    with torch_compile(False):
        assert os.environ[VARIABLE] == "1"
    assert os.environ[VARIABLE] == "0"


def test_the_engine_starts_without_the_compiler():
    """Loading torch's compiler takes a second, in each rank."""
    code = (
        "import sys; from model.muon.compilation import torch_compile\n"
        "with torch_compile(False): import deepspeed.runtime.zero.muon.muon_optimizer\n"
        "sys.exit('torch._inductor.compile_fx' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
