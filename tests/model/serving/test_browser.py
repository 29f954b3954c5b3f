"""The command `serve` with a real browser, and its ends."""

import asyncio
import csv
import json
import signal
import socket
import subprocess
import sys

import pytest

from model.prediction.predictor import Predictor
from tests.conftest import ROOT
from tests.model.serving.browser import find_browser, open_tab

pytestmark = pytest.mark.processes


def start(model, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "model.cli", "serve", str(model), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def test_a_person_predicts_downloads_and_explains(model, rows, tmp_path):
    if (browser := find_browser()) is None:
        pytest.skip("no browser is installed (chromium or google-chrome)")
    (tmp_path / "rows.fasta").write_text("".join(f">n{place}\n{row}\n" for place, row in enumerate(rows)))
    (tmp_path / "downloads").mkdir()

    async def use(url: str) -> tuple[list[str], list[str]]:
        async with open_tab(browser, tmp_path / "profile", url) as tab:
            downloads = str(tmp_path / "downloads")
            await tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=downloads)
            pasted = json.dumps("\n".join([*rows[:2], "acgt"]))
            fill = f"document.querySelector('textarea').value = {pasted}; document.querySelector('button').click()"
            await tab.evaluate(fill)
            await tab.wait("document.querySelectorAll('#results tbody tr').length == 3")
            cells = await tab.evaluate("[...document.querySelectorAll('td.number')].map(cell => cell.textContent)")
            await tab.evaluate("document.querySelector('textarea').value = ''")
            await tab.choose_file("#file", tmp_path / "rows.fasta")
            await tab.evaluate("document.querySelector('button').click()")
            await tab.wait(f"document.querySelectorAll('#results tbody tr').length == {len(rows)}")
            await tab.evaluate("document.querySelector('a[download]').click()")
            while not list((tmp_path / "downloads").glob("*.tsv")):
                await asyncio.sleep(0.05)
            await tab.evaluate("document.querySelector('td a').click()")
            await tab.attach_to_other_tab("/explain")
            await tab.wait("document.querySelectorAll('svg').length == 1")
            return cells, tab.log

    server = start(model, "--port", "0")
    try:
        url = server.stdout.readline().split()[0]
        cells, log = asyncio.run(use(url))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            second = start(model, "--port", str(port))
            assert (second.wait(), second.stderr.read().count("\n")) == (1, 1)
    finally:
        server.send_signal(signal.SIGINT)
        _, error = server.communicate(timeout=60)
    assert (server.returncode, "interrupted" in error) == (0, False), error
    assert log == []
    expected = Predictor(model).predict(rows)
    assert [float(cell) for cell in cells[1:4:2]] == pytest.approx(expected[:2].tolist(), rel=1e-4)
    (file,) = (tmp_path / "downloads").iterdir()
    table = list(csv.DictReader(file.open(), delimiter="\t"))
    assert [row["name"] for row in table] == [f"n{place}" for place in range(len(rows))]
    assert [float(row["prediction"]) for row in table] == pytest.approx(expected.tolist(), rel=1e-4)
