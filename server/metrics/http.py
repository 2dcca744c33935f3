"""The metrics page: ``/metrics`` over HTTP on a port of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class MetricsEndpoint:
    """Serves a registry from a thread, in the text format or, where asked for, OpenMetrics; a context
    manager.

    Binds at once, to ``port`` or, for 0, to a free one. Raises ``OSError`` when it cannot.
    """

    def __init__(self, registry: CollectorRegistry, *, port: int, address: str = "0.0.0.0") -> None:  # noqa: S104
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server_class: type[WSGIServer] = type("_Server", (ThreadingWSGIServer,), {"address_family": family})
        self._page: WSGIApplication = make_wsgi_app(registry)
        self._server: WSGIServer = make_server(
            address, port, self._answer, server_class=server_class, handler_class=_QuietHandler
        )
        self._thread = Thread(target=self._server.serve_forever, name="limner-metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop serving and free the port; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> MetricsEndpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in ("/metrics", "/metrics/"):
            return self._page(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"The metrics are at /metrics\n"]


class _QuietHandler(WSGIRequestHandler):
    """Writes no line for each scrape, and lets no silent connection hold a thread for ever."""

    timeout = 10

    def log_message(self, *_: object) -> None:
        """Write nothing."""
