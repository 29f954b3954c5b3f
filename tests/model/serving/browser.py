"""Headless Chromium, driven by its DevTools protocol through aiohttp's WebSocket client."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
TIMEOUT_S = 120


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One tab. `log` collects errors of the page, such as violations of its content security policy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, log: list[str]) -> None:
        self._socket, self.log = socket, log
        self._numbers = itertools.count()
        self._session: dict[str, str] = {}

    async def attach(self, target: str) -> None:
        answer = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": answer["sessionId"]}
        await self.call("Log.enable")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params, **self._session})
        while True:
            message = json.loads(await self._socket.receive_str(timeout=TIMEOUT_S))
            if message.get("method") == "Log.entryAdded":
                self.log.append(message["params"]["entry"]["text"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def evaluate(self, expression: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait(self, expression: str) -> None:
        """Evaluate until the value is true; a page that is being left has no value."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                with suppress(AssertionError):
                    if await self.evaluate(f"document.readyState == 'complete' && Boolean({expression})"):
                        return
                await asyncio.sleep(0.05)

    async def choose_file(self, selector: str, file: Path) -> None:
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    async def attach_to_other_tab(self, part_of_url: str) -> None:
        self._session = {}
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                targets = (await self.call("Target.getTargets"))["targetInfos"]
                if found := [target["targetId"] for target in targets if part_of_url in target["url"]]:
                    return await self.attach(found[0])
                await asyncio.sleep(0.05)


@asynccontextmanager
async def open_tab(browser: str, profile: Path, url: str) -> AsyncIterator[Tab]:
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
    ]
    program = await asyncio.create_subprocess_exec(
        browser, *options, f"--user-data-dir={profile}", "about:blank", stderr=asyncio.subprocess.PIPE
    )
    try:
        assert program.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = b""
            while not line.startswith(b"DevTools listening on "):
                line = await program.stderr.readline()
                assert line, "the browser ended"
        address = line.split()[-1].decode()
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            tab = Tab(socket, [])
            await tab.attach((await tab.call("Target.createTarget", url=url))["targetId"])
            await tab.wait("location.href != 'about:blank'")
            yield tab
            tab._session = {}
            await tab.call("Browser.close")
    finally:
        with suppress(ProcessLookupError):
            program.kill()
        await program.wait()
