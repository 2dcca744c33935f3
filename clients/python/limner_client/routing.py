"""Which of the addresses behind the target's name a call goes to."""

import json
import os
from typing import Any, Literal

Routing = Literal["any", "reference"]
"""`any` leaves it to `ChannelSettings.load_balancing`; `reference` keeps the calls of a reference together."""

HASHED = "x-limner-reference"
"""The metadata whose value is hashed; calls without it go to a replica drawn at random."""

RING_POINTS = 4096
"""Points of all replicas together, at least; 128 each at 32 replicas keep shares even.

Every replica has the same number of them, rounded up. A ring of exactly so many would give the odd ones to the
replicas that the name server tells first; clients that are told another order would disagree about a few references.
"""

_SWITCH = "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"


def ring_arguments() -> list[tuple[str, Any]]:
    """Give the channel arguments of gRPC's own ring hash, on the metadata that names the reference.

    The service config is that of gRFC A42 and A76. Replicas are watched through `grpc.health.v1` (gRFC A17), so
    that one that drains gives its references to the next on the ring before it refuses them.
    """
    # gRPC core takes `requestHashHeader` only with this switch, which it reads when it parses the config; without, all
    # calls fail. It acts on nothing but such configs, so setting it for the process changes no other channel.
    os.environ[_SWITCH] = "true"
    most = 2 * RING_POINTS
    ring = {"minRingSize": RING_POINTS, "maxRingSize": most, "requestHashHeader": HASHED}
    config = {
        "loadBalancingConfig": [{"ring_hash_experimental": ring}],
        "healthCheckConfig": {"serviceName": "readiness"},
    }
    # gRPC core has no ring above 4096 points, unless it is told so.
    return [("grpc.service_config", json.dumps(config)), ("grpc.lb.ring_hash.ring_size_cap", most)]
