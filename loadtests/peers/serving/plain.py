"""A pipeline behind a minimal HTTP server, request by request: what people write first."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loadtests.peers.ask import BadAskError, parse_ask
from loadtests.peers.pipelines.batched import PeerPipeline, UnknownReferenceError, UnknownSamplerError, to_png
from loadtests.peers.serving.settings import parse_settings


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


def bind(pipeline: PeerPipeline, port: int) -> ThreadingHTTPServer:
    """Return a server that answers POSTs of an `Ask` with a PNG, one after the other."""
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                ask = parse_ask(json.loads(body))
                with turn:
                    (picture,) = pipeline.generate([ask])
            except (ValueError, BadAskError, UnknownReferenceError, UnknownSamplerError) as error:
                self._answer(HTTPStatus.BAD_REQUEST, "text/plain", str(error).encode())
            else:
                self._answer(HTTPStatus.OK, "image/png", to_png(picture))

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None:
            """Log no line a request."""

    return _Server(("127.0.0.1", port), Handler)


def main() -> None:
    settings = parse_settings(__doc__)
    bind(settings.pipeline(), settings.port).serve_forever()


if __name__ == "__main__":
    main()
