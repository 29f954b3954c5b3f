"""The WSGI application: a page for people, and POST /predict with JSON for scripts.

No part of a request is used as a path. Answers load nothing, run no scripts, and can be read by no other web site.
"""

import base64
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from model.prediction.row_writers import LINE_BREAKERS, as_text
from model.serving.limits import RefusedError, too_large
from model.serving.service import Prediction, PredictionService
from pipeline.errors import UserError
from pipeline.reporting.html import page_environment
from pipeline.runtime.text import format_count, name_sequences

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HOST = re.compile(r"\[([0-9a-f:.]+)\]|([a-z0-9._-]+)")
SURROGATES = re.compile("[\ud800-\udfff]")
SHOWN_ROWS = 500
"""Rows of the table on the page; the download has all."""
FORM_PARTS = 8
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PredictionApp:
    """WSGI application of a service. hosts: names by which clients may call the server; IP addresses are allowed."""

    def __init__(self, service: PredictionService, hosts: Iterable[str] = ("localhost",)) -> None:
        self._service = service
        self._hosts = frozenset(host.lower() for host in hosts)
        self._template = page_environment("model.serving").get_template("serve.html")
        self._routes: dict[str, dict[str, Callable[[Request], Response]]] = {
            "/": {"GET": lambda _: self._page(), "POST": self._show_predictions},
            "/explain": {"GET": self._show_effects},
            "/predict": {"POST": self._predict_json},
        }

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        request.max_content_length = request.max_form_memory_size = self._service.limits.body_bytes
        request.max_form_parts = FORM_PARTS
        response = self._answer(request)
        response.headers.update(HEADERS)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        try:
            self._check_origin(request)
            methods = self._routes.get(request.path)
            if methods is None:
                raise RefusedError(404, f"no page here; expected {', '.join(self._routes)}")
            handler = methods.get("GET" if request.method == "HEAD" else request.method)
            if handler is None:
                raise RefusedError(405, f"expected {' or '.join(methods)}")
            return handler(request)
        except UserError as error:
            return self._refuse(request, 400, str(error))
        except RefusedError as error:
            return self._refuse(request, error.status, str(error))
        except RequestEntityTooLarge:
            return self._refuse(request, 413, str(too_large(self._service.limits)))
        except HTTPException as error:
            return self._refuse(request, error.code or 400, error.description or error.name)

    def _check_origin(self, request: Request) -> None:
        """Refuse a name that may be another site's (DNS rebinding), and requests that pages of other sites send."""
        host = HOST.fullmatch(re.sub(r":\d*$", "", request.headers.get("Host", "").lower()))
        if host is None or not (host[2] in self._hosts or _is_address(host[1] or host[2])):
            raise RefusedError(400, "unknown host name; fix: use the address that promoter-bert serve printed")
        site = request.headers.get("Sec-Fetch-Site", "none")
        is_link = request.path == "/" and request.method == "GET"
        if not is_link and site not in ("none", "same-origin"):
            raise RefusedError(403, "request from a page of another site; fix: use the page of this server")

    def _refuse(self, request: Request, status: int, message: str) -> Response:
        if request.path == "/predict":
            response = _json({"error": message}, status)
        else:
            response = self._page(error=message, status=status)
        if status == 503:
            response.headers["Retry-After"] = "60"
        return response

    def _show_predictions(self, request: Request) -> Response:
        text = request.form.get("sequences", "")
        files = [file for file in request.files.getlist("file") if file.filename]
        if bool(text.strip()) + len(files) != 1:
            problem = f"{len(files)} files" if len(files) > 1 else "sequences and a file" if files else "no sequences"
            raise UserError(f"{problem}; expected sequences or one file")
        data = files[0].read() if files else text.encode()
        column = request.form.get("column", "").strip()
        return self._page(text, column, self._service.predict_upload(data, column or None))

    def _show_effects(self, request: Request) -> Response:
        return Response(self._service.explain(request.args.get("sequence", "")), mimetype="text/html")

    def _predict_json(self, request: Request) -> Response:
        if not request.is_json:
            raise RefusedError(415, "expected Content-Type: application/json")
        try:
            body = request.get_json()
        except RecursionError:
            body = None
        sequences = body.get("sequences") if isinstance(body, dict) else None
        if not isinstance(sequences, list) or not all(map(_is_text, sequences)):
            raise UserError('expected {"sequences": ["ACGT...", ...]}')
        prediction = self._service.predict_sequences(sequences)
        rows = [{name: _finite(cell) for name, cell in row.items()} for row in prediction.table.to_pylist()]
        return _json({"predictions": rows, "warnings": list(prediction.warnings), "hint": prediction.hint})

    def _page(
        self,
        text: str = "",
        column: str = "",
        prediction: Prediction | None = None,
        error: str = "",
        status: int = 200,
    ) -> Response:
        service, name = self._service, self._service.sequence_name
        page = self._template.render(
            title=name_sequences("promoter-bert: predict promoters", name), assay=service.assay, limits=service.limits,
            footer=f"Model {service.run}", text=text, column=column, error=error, prediction=prediction, zip=zip,
            restart="" if prediction is None else service.restart_command(prediction.repairs),
            **({} if prediction is None else _describe(prediction, name)),
        )  # fmt: skip
        return Response(page, status, mimetype="text/html")


def _describe(prediction: Prediction, name: str) -> dict[str, Any]:
    """Prepare the results for the template: a summary, the download, and the rows as text.

    A row has the cells of `columns`, its sequence, and its problem, empty for a valid one.
    """
    table = prediction.table
    texts = {
        name: [as_text(cell) if pa.types.is_floating(column.type) else cell or "" for cell in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    lines = [texts.keys(), *zip(*texts.values(), strict=True)]
    download = "".join("\t".join(LINE_BREAKERS.sub(" ", cell) for cell in line) + "\n" for line in lines)
    sequences, problems = texts.pop("sequence"), texts.pop("problem")
    rows = list(zip(zip(*texts.values(), strict=True), sequences, problems, strict=True))
    rejects = sum(prediction.problems.values())
    rejected = f", {format_count(rejects, 'sequence')} without a prediction" if rejects else ""
    return {
        "summary": f"{format_count(len(rows) - rejects, name)} predicted{rejected}",
        "columns": list(texts),
        "rows": rows[:SHOWN_ROWS],
        "count": len(rows),
        "download": base64.b64encode(download.encode()).decode(),
    }


def _is_text(cell: object) -> bool:
    """Whether a value of JSON is Unicode text, without surrogates, which have no UTF-8."""
    return isinstance(cell, str) and not SURROGATES.search(cell)


def _finite(cell: object) -> object:
    """JSON has no infinity."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _json(values: object, status: int = 200) -> Response:
    return Response(json.dumps(values) + "\n", status, mimetype="application/json")


def _is_address(host: str) -> bool:
    """Whether a host is an IP address: it cannot be rebound, as it is not looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
