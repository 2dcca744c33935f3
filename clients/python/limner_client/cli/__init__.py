"""The `limner` command."""

import argparse
import os
import sys
from collections.abc import Sequence

from limner_client.channel import ChannelSettings, Tls
from limner_client.cli import render
from limner_client.cli.arguments import build_parser
from limner_client.cli.commands import run
from limner_client.cli.exits import BAD_REQUEST, INTERRUPTED, exit_code
from limner_client.client import Client
from limner_client.errors import LimnerError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` and return its exit code; see `limner --help`."""
    arguments = build_parser(os.environ).parse_args(argv)
    try:
        with _client(arguments) as client:
            return run(client, arguments)
    except LimnerError as error:
        text = render.to_json(render.error_json(error)) if arguments.json else render.error_text(error)
        print(text, file=sys.stderr)
        return exit_code(error)
    except (OSError, ValueError) as error:
        local = LimnerError(str(error), code="INVALID_ARGUMENT", reason="LOCAL")
        text = render.to_json(render.error_json(local)) if arguments.json else f"limner: {error}"
        print(text, file=sys.stderr)
        return BAD_REQUEST
    except KeyboardInterrupt:
        print("limner: interrupted", file=sys.stderr)
        return INTERRUPTED


def _client(arguments: argparse.Namespace) -> Client:
    parts = {
        "root_certificates": arguments.tls_ca,
        "certificate": arguments.tls_cert,
        "private_key": arguments.tls_key,
        "server_name": arguments.tls_server_name,
    }
    tls = Tls(**parts) if arguments.tls or any(parts.values()) else None
    return Client(
        arguments.server,
        tenant=arguments.tenant,
        channel=ChannelSettings(tls=tls, routing=arguments.routing),
    )
