"""Plain HTTP calls to the proxy, of which an error is an answer too."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)


def call(
    target: str, method: str, path: str, body: bytes | dict[str, Any] | None = None, **headers: str
) -> Answer:
    """Call `method` `path`; a dictionary is sent as JSON, and `_` in the name of a header means `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, dict):
        body = json.dumps(body).encode()
        sent = {"content-type": "application/json"} | sent
    connection = http.client.HTTPConnection(target, timeout=60)
    try:
        # A refusal comes while a long body is still being sent; then the rest of it does not matter.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        return Answer(
            status=answer.status,
            headers={name.lower(): value for name, value in answer.getheaders()},
            body=answer.read(),
        )
    finally:
        connection.close()
