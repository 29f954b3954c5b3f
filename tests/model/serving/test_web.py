"""The web application, called in this process: values, inputs, limits, refusals."""

import base64
import csv
import gzip
import json
import math
import re
import tempfile
import threading
import time
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from werkzeug.test import Client, TestResponse

from model.prediction.predictor import Predictor
from model.serving.limits import Limits
from model.serving.service import PredictionService
from model.serving.web import PredictionApp
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
LIMITS = Limits(body_bytes=60_000, sequences=300, requests=2, wait_s=60, predict_s=60)
JSON = "application/json"


@pytest.fixture(scope="module")
def service(model):
    return PredictionService(model, limits=LIMITS)


@pytest.fixture(scope="module")
def client(service):
    return Client(PredictionApp(service))


@pytest.fixture
def private(tmp_path, monkeypatch):
    """A folder that gets all temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def upload(client: Client, data: bytes | str, name: str = "rows.bin", **fields: str) -> TestResponse:
    content = data.encode() if isinstance(data, str) else data
    return client.post("/", data={"file": (BytesIO(content), name), **fields})


def downloaded(response: TestResponse) -> list[dict[str, str]]:
    assert response.status_code == 200, response.text
    link = re.search(r'href="data:text/tab-separated-values;base64,([^"]+)" download', response.text)
    assert link is not None
    return list(csv.DictReader(base64.b64decode(link[1]).decode().splitlines(), delimiter="\t"))


def values_of(response: TestResponse, column: str = "prediction") -> list[float]:
    return [float(row[column]) for row in downloaded(response)]


def parquet(rows: list[str]) -> bytes:
    file = BytesIO()
    pq.write_table(pa.table({"seq": rows, "count": range(len(rows))}), file)
    return file.getvalue()


def test_json_has_the_values_of_the_predictor(client, model, rows):
    response = client.post("/predict", json={"sequences": [*rows, "A\0", "ACGX"]})
    *valid, nul, invalid = response.json["predictions"]
    assert (nul["prediction"], nul["problem"]) == (None, *Predictor(model).problems(["A\0"]))
    assert [row["sequence"] for row in valid] == rows
    assert [row["prediction"] for row in valid] == pytest.approx(Predictor(model).predict(rows).tolist(), abs=1e-5)
    assert (invalid["prediction"], invalid["problem"]) == (None, *Predictor(model).problems(["ACGX"]))
    assert "access-control-allow-origin" not in response.headers


def test_every_format_is_found_by_its_content(client, model, rows, private):
    expected = pytest.approx(Predictor(model).predict(rows).tolist(), rel=1e-4, abs=1e-5)
    lines, fasta = "\n".join(rows), "".join(f">n{number} x\n{row}\n" for number, row in enumerate(rows))
    table = "id,promoter,n\n" + "".join(f"i{number},{row},{number}\n" for number, row in enumerate(rows))
    for data in (
        lines, fasta, f"\ufeff{fasta}", table, gzip.compress(fasta.encode()), parquet(rows),
        "".join(json.dumps({"seq": row}) + "\n" for row in rows),
    ):  # fmt: skip
        assert values_of(upload(client, data, "../../etc/passwd.xls")) == expected
    pasted = client.post("/", data={"sequences": fasta.replace("\n", "\r\n"), "column": ""})
    assert values_of(pasted) == expected
    assert [row["name"] for row in downloaded(pasted)][:2] == ["n0", "n1"]
    assert not list(private.iterdir())


def test_rejects_keep_their_place_and_show_their_reason(client, model, rows):
    sequences = [rows[0], f"<b>{rows[1][3:]}", rows[2].lower()]
    response = client.post("/", data={"sequences": "\n".join(sequences)})
    results = downloaded(response)
    assert [math.isfinite(float(row["prediction"])) for row in results] == [True, False, False]
    assert [row["problem"] or None for row in results] == Predictor(model).problems(sequences)
    (command,) = re.findall(r"<code>(promoter-bert serve .*)</code>", response.text)
    assert command.split() == ["promoter-bert", "serve", str(model), "assay.lower_case=upper"]
    assert "<b>" not in response.text
    assert response.text.count('href="/explain') == 1


def test_the_column_of_sequences_can_be_chosen(client, rows):
    table = "promoter,other\n" + "".join(f"{one},{other}\n" for one, other in zip(rows[:20], rows[20:40], strict=True))
    first = values_of(client.post("/", data={"sequences": table, "column": "1"}))
    second = values_of(client.post("/", data={"sequences": table, "column": "other"}))
    assert (first, second) == (
        values_of(upload(client, "\n".join(rows[:20]))),
        values_of(upload(client, "\n".join(rows[20:40]))),
    )
    assert client.post("/", data={"sequences": table, "column": "third"}).status_code == 400


def test_effects_of_a_sequence(client, rows):
    response = client.get("/explain", query_string={"sequence": rows[0]})
    assert response.status_code == 200
    assert rows[0][len(L) : -len(R)] in response.text
    assert "<svg" in response.text
    assert "script" not in response.headers["Content-Security-Policy"]  # default-src 'none'


def test_several_labels_and_repairs(assay, tmp_path, rows):
    folder = save_model(tmp_path / "model", assay, labels=("Dev", "Hk"))
    settings = json.loads((folder / "config.json").read_text())
    settings["promoter_bert"]["insert_lengths"] = [1, 2]
    (folder / "config.json").write_text(json.dumps(settings))
    client = Client(PredictionApp(PredictionService(folder, ["assay.lower_case=upper"], LIMITS)))
    response = client.post("/", data={"sequences": "\n".join(rows).lower()})
    for place, label in enumerate(("Dev", "Hk")):
        expected = Predictor(folder).predict(rows)[:, place].tolist()
        assert values_of(response, f"prediction_{label}") == pytest.approx(expected, rel=1e-4, abs=1e-5)
    explained = client.get("/explain", query_string={"sequence": rows[0].lower()})
    assert explained.text.count("<svg") == 2
    assert "the model was trained on 1\u00a0to\u00a02 bases" in explained.text


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"\0\1\2" * 100, 400),
        (b"PAR1" + bytes(100), 400),
        (b"ARROW1" + bytes(100), 400),
        (b"\x1f\x8b" + bytes(100), 400),
        (b"PK\3\4" + bytes(100), 400),
        (b"BZh9" + bytes(100), 400),
        (b'{"seq": 1', 400),
        (b"<html>\n<body>\n<p>No sequence is here.</p>\n</body>\n</html>\n", 400),
        (gzip.compress(bytes(10_000_000)), 413),
        (b"A" * 70_000, 413),
        ((b"ACGT" * 10 + b"\n") * 301, 413),
    ],
)
def test_bad_uploads_are_refused_in_one_line(client, private, data, status):
    response = upload(client, data)
    assert response.status_code == status
    (message,) = re.findall(r'<p class="note" role="alert">(.*)</p>', response.text)
    assert str(private) not in message
    assert not list(private.iterdir())


@pytest.mark.parametrize(
    ("body", "mimetype", "status"),
    [
        (b'{"sequences": ["A"]}', "text/plain", 415),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"sequences": "ACGT"}', JSON, 400),
        (b'{"sequences": [1]}', JSON, 400),
        (b'{"sequences": []}', JSON, 400),
        (b'{"sequences": ["\\ud800"]}', JSON, 400),
        (json.dumps({"sequences": ["A"] * 301}).encode(), JSON, 413),
        (b" " * 70_000, JSON, 413),
        (b"[" * 50_000, JSON, 400),
    ],
)
def test_bad_json_is_refused(client, body, mimetype, status):
    response = client.post("/predict", data=body, content_type=mimetype)
    assert (response.status_code, list(response.json)) == (status, ["error"])


def test_one_file_is_expected(client, rows):
    files = [(BytesIO(row.encode()), "rows.txt") for row in rows[:2]]
    assert client.post("/", data={"file": files}).status_code == 400


def test_no_path_is_opened(client, tmp_path):
    (tmp_path / "secret.txt").write_text("SECRET")
    for path in (f"/{tmp_path}/secret.txt", "/../../etc/passwd", "/%2e%2e/etc/passwd", "/explain/../x", "/static/x"):
        assert client.get(path).status_code == 404
    for text in (f"{tmp_path}/secret.txt", f"{tmp_path}/*.txt"):
        response = client.post("/", data={"sequences": text, "file": text})
        assert "SECRET" not in response.text
        assert client.get("/explain", query_string={"sequence": text}).status_code == 400
    assert client.get("/explain", query_string={"sequence": f"{L}{'A' * 300}{R}"}).status_code == 413
    assert client.put("/").status_code == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200),
        ("evil.example", 400), ("localhost.evil.example", 400), ("127.0.0.1.evil.example:80", 400),
        ("evil@127.0.0.1", 400), ("", 400), ("[evil]", 400),
    ],
)  # fmt: skip
def test_host_names_of_other_sites_are_refused(client, host, status):
    assert client.get("/", headers={"Host": host}).status_code == status


def test_pages_of_other_sites_can_only_link_to_the_form(client, rows):
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/explain", query_string={"sequence": rows[0]}, headers=headers).status_code == 403
    assert client.post("/predict", json={"sequences": rows[:1]}, headers=headers).status_code == 403


def test_two_at_once_and_a_full_queue(client, model, service, rows):
    halves, answers = (rows[:50], rows[50:]), {}

    def ask(place: int) -> None:
        answers[place] = client.post("/predict", json={"sequences": halves[place]}).json["predictions"]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(2)]
    with service._turn:  # both wait
        for thread in threads:
            thread.start()
        while service._queue._value:
            time.sleep(0.01)
        refused = client.post("/predict", json={"sequences": rows[:1]})
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert client.get("/").status_code == 200
    for thread in threads:
        thread.join()
    for place, half in enumerate(halves):
        values = [row["prediction"] for row in answers[place]]
        assert values == pytest.approx(Predictor(model).predict(half).tolist(), abs=1e-5)
    assert client.post("/predict", json={"sequences": rows[:1]}).status_code == 200


def test_long_waits_and_predictions_are_ended(model, rows):
    service = PredictionService(model, limits=Limits(wait_s=0.01, predict_s=0))
    client = Client(PredictionApp(service))
    with service._turn:
        waited = client.post("/predict", json={"sequences": rows[:1]})
    predicted = client.post("/predict", json={"sequences": rows})
    assert (waited.status_code, predicted.status_code) == (503, 503)


def test_pages_load_nothing_from_elsewhere(client, rows):
    for response in (client.get("/"), client.post("/", data={"sequences": rows[0]})):
        assert set(re.findall(r'(?:src|href|action)="([^":]*)', response.text)) <= {"/", "data"} | set(
            re.findall(r'href="(/explain[^"]*)', response.text)
        )
        for identifier in re.findall(r'<(?:textarea|input)[^>]* id="(\w+)"', response.text):
            assert f'<label for="{identifier}">' in response.text
