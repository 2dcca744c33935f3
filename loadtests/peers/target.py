"""A peer as a target of the runner: asked over HTTP, in the one format that all of them read."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from loadtests.peers.ask import Ask
from loadtests.peers.errors import PeerRefusedError
from loadtests.peers.people import PEOPLE
from loadtests.runner.errors import TargetError
from loadtests.runner.request import PlannedRequest
from loadtests.runner.target import Outcome, Status

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHOWN = 200
"""Bytes of an answer that is no picture, for standard error."""
CALL_SECONDS = 600.0
CALLS = 1024
"""Threads, which begin when they are first needed. The loop's own would cap the calls in flight at cores + 4."""


class UnsupportedRequestError(ValueError):
    """A request that no peer is told how to answer; names the field and the limit."""


def to_ask(request: PlannedRequest) -> Ask:
    """Return a planned request as peers receive it. Raises ``UnsupportedRequestError``."""
    if request.person is None or request.person >= PEOPLE:
        raise UnsupportedRequestError(f"person must be one of 0 to {PEOPLE - 1}, not {request.person}")
    for name, value, only in (
        ("width", request.width, 0),
        ("height", request.height, 0),
        ("images", request.images, 1),
        ("format", request.format, "png"),
    ):
        if value != only:
            raise UnsupportedRequestError(f"{name} must be {only}, not {value}")
    return Ask(
        prompt=request.prompt,
        reference=str(request.person),
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        sampler=request.sampler,
        ip_adapter_scale=request.ip_adapter_scale,
        seed=request.seed,
    )


class PeerTarget:
    """Asks a peer with one thread a call in flight, so that asyncio is not what is measured.

    kserve: the request is wrapped as the KServe v2 protocol has it.
    """

    def __init__(self, name: str, url: str, *, kserve: bool = False) -> None:
        self._name = name
        self._url = url
        self._kserve = kserve

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(CALLS, thread_name_prefix=self._name)
        return self

    async def __aexit__(self, *_: object) -> None:
        # A call that was given up still sits in its thread; nobody waits for it.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, people: Iterable[int]) -> None:
        """Check that the peer has these people: they lay in its folder when it started. Raises TargetError."""
        if unknown := [person for person in people if person >= PEOPLE]:
            raise TargetError(f"{self._name}: person must be one of 0 to {PEOPLE - 1}, not {unknown[0]}")

    async def call(self, request: PlannedRequest) -> Outcome:
        """Ask for one portrait; whatever is no picture is a failure."""
        try:
            ask = to_ask(request)
            limit = request.deadline or CALL_SECONDS
            picture = await asyncio.get_running_loop().run_in_executor(self._threads, self.ask, ask, limit)
        except PeerRefusedError as error:
            return Outcome(status=Status.FAILED, reason=error.reason, message=error.log)
        except UnsupportedRequestError as error:
            return Outcome(status=Status.FAILED, reason="was asked for what it cannot do", message=str(error))
        return Outcome(status=Status.OK, images=1, pictures=(picture,))

    def ask(self, ask: Ask, timeout: float = CALL_SECONDS) -> bytes:
        """Post one ask and return the picture, a PNG. Raises ``PeerRefusedError`` for any other answer."""
        request = urllib.request.Request(
            self._url, self._body(ask).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise PeerRefusedError(self._name, f"answered {error.code}", _text(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise PeerRefusedError(self._name, f"gave no answer: {error}") from error
        return self._picture(body)

    def _picture(self, body: bytes) -> bytes:
        picture = body
        if self._kserve:
            try:
                picture = base64.b64decode(json.loads(body)["outputs"][0]["data"][0])
            except (ValueError, LookupError, TypeError) as error:
                raise PeerRefusedError(
                    self._name, "answered no KServe outputs", repr(body[:SHOWN])
                ) from error
        if not picture.startswith(PNG_SIGNATURE):
            raise PeerRefusedError(self._name, "answered no PNG", repr(picture[:SHOWN]))
        return picture

    def _body(self, ask: Ask) -> str:
        if not self._kserve:
            return ask.to_json()
        # The KServe v2 protocol's "bytes" are strings in JSON.
        return json.dumps(
            {"inputs": [{"name": "ask", "datatype": "BYTES", "shape": [1, 1], "data": [ask.to_json()]}]}
        )


def _text(answer: urllib.error.HTTPError) -> str:
    """Return what a refusal says, as far as it can be read: its status alone is reason enough."""
    try:
        return answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"its body could not be read: {error!r}"
