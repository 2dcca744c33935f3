"""Transport security and channel options."""

from concurrent import futures
from pathlib import Path

import grpc
import pytest
import trustme
from limner.v1 import model_service_pb2_grpc
from limner_client import ChannelSettings, Client, RetryPolicy, Tls, Unavailable
from limner_client.cli import main

from tests.client.fakes import FakeLimner

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate for `limner.test` with its authority's, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("limner.test")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    certificate.write_bytes(issued.cert_chain_pems[0].bytes() + authority.cert_pem.bytes())
    return certificate, key


@pytest.fixture
def tls_target(certificate: tuple[Path, Path]):
    """Serve with mutual TLS: clients must show the same certificate."""
    path, key = certificate
    server = grpc.server(futures.ThreadPoolExecutor(2))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(FakeLimner(), server)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), path.read_bytes())],
        root_certificates=path.read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_mutual_tls(tls_target, certificate):
    path, key = certificate
    tls = Tls(root_certificates=path, certificate=path, private_key=key, server_name="limner.test")
    with Client(tls_target, channel=ChannelSettings(tls=tls), retry=ONCE) as client:
        assert client.limits().max_images == 8


def test_the_command_speaks_mutual_tls(tls_target, certificate, capsys):
    path, key = map(str, certificate)
    flags = ["--tls-ca", path, "--tls-cert", path, "--tls-key", key, "--tls-server-name", "limner.test"]
    assert main(["info", "--server", tls_target, *flags]) == 0
    assert "embedded" in capsys.readouterr().out


def test_a_server_of_another_name_is_refused(tls_target, certificate):
    path, key = certificate
    tls = Tls(root_certificates=path, certificate=path, private_key=key, server_name="other.test")
    with (
        Client(tls_target, channel=ChannelSettings(tls=tls), retry=ONCE) as client,
        pytest.raises(Unavailable),
    ):
        client.limits()


def test_plain_text_does_not_reach_a_tls_server(tls_target):
    with Client(tls_target, retry=ONCE) as client, pytest.raises(Unavailable):
        client.limits()


def test_options_of_ones_own_come_last():
    arguments = ChannelSettings(options=(("grpc.lb_policy_name", "pick_first"),)).arguments()
    assert dict(arguments)["grpc.lb_policy_name"] == "pick_first"
    assert dict(arguments)["grpc.max_receive_message_length"] == 64 * 2**20


@pytest.mark.parametrize("tenant", ["acmé", "a\nb"])
def test_a_tenant_must_fit_into_metadata(tenant):
    with pytest.raises(ValueError, match="tenant"):
        Client(tenant=tenant)
