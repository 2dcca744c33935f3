"""Write the shipped Envoy configuration with other addresses, and nothing else changed.

python -m tools.deploy.envoy --replica 10.0.0.5:50051 --replica 10.0.0.6:50051 > envoy.yaml
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.deploy.paths import DEPLOY

SHIPPED = DEPLOY / "envoy" / "envoy.yaml"
DESCRIPTORS = DEPLOY / "envoy" / "limner.binpb"


def configuration(
    *,
    replicas: Sequence[str] = (),
    listen: str = "",
    admin: str = "",
    descriptors: str | Path = "",
) -> dict[str, Any]:
    """Return the shipped bootstrap; each address is `host:port`, and what is left out stays as shipped.

    `descriptors` is where limner.binpb lies on the machine that runs Envoy.
    """
    shipped: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    (listener,), (cluster,) = (
        shipped["static_resources"]["listeners"],
        shipped["static_resources"]["clusters"],
    )
    if listen:
        listener["address"] = address(listen)
    if admin:
        shipped["admin"]["address"] = address(admin)
    if replicas:
        (endpoints,) = cluster["load_assignment"]["endpoints"]
        endpoints["lb_endpoints"] = [{"endpoint": {"address": address(one)}} for one in replicas]
    if descriptors:
        (manager,) = listener["filter_chains"][0]["filters"]
        (transcoder,) = (
            one for one in manager["typed_config"]["http_filters"] if one["name"].endswith("json_transcoder")
        )
        transcoder["typed_config"]["proto_descriptor"] = str(descriptors)
    return shipped


def address(text: str) -> dict[str, Any]:
    """Read `host:port`, of which an IPv6 host stands in brackets. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port with a port of 0 to 65535")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the configuration."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.deploy.envoy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--replica", metavar="HOST:PORT", action="append", default=[], help="one of the servers"
    )
    parser.add_argument("--listen", metavar="HOST:PORT", default="", help="where callers reach the proxy")
    parser.add_argument(
        "--admin", metavar="HOST:PORT", default="", help="its administration; keep it on loopback"
    )
    parser.add_argument("--descriptors", metavar="FILE", default="", help="where limner.binpb lies there")
    given = parser.parse_args(arguments)
    try:
        made = configuration(
            replicas=given.replica, listen=given.listen, admin=given.admin, descriptors=given.descriptors
        )
    except ValueError as fault:
        parser.error(str(fault))
    sys.stdout.write(yaml.safe_dump(made, sort_keys=False, width=110))
    return 0


if __name__ == "__main__":
    sys.exit(main())
