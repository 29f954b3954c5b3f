import shutil

from tests.conftest import ROOT
from tests.integration.conftest import Workspace


def test_the_measurements_for_a_gpu_run_in_a_small_form(tmp_path):
    """Every way to train gives a row; where Hugging Face's packages are not installed, its row says so."""
    work = Workspace(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    words = ("--tiny", "--steps", "3", "--out", "gpu.md", "--trace", "t.json")
    work.run("python", str(ROOT / "bench" / "gpu.py"), *words)
    rows = [line.split("|")[1:-1] for line in (tmp_path / "gpu.md").read_text().splitlines() if line.startswith("| ")]
    measured = {name.strip(): numbers[0].strip() for name, *numbers in rows[2:]}
    assert len(measured) == 6
    for name, rate in measured.items():
        missing = rate == "failed: No module named 'datasets'" and "Hugging Face" in name
        assert missing or float(rate.replace(",", "")) > 0, (name, rate)
    assert (tmp_path / "t.json").stat().st_size > 10_000
