from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from limner.v1.model_service_pb2 import GetLimitsRequest
from limner.v1.model_service_pb2_grpc import ModelServiceStub
from limner_client import AsyncClient, ChannelSettings, RetryPolicy, Tls, Unavailable

from server.config import ConfigError, load
from server.config.listen_options import ListenOptions
from server.side_ports import HEALTH_RPCS
from tests.server.running import Serving, run_server, until_ready
from tests.server.tls import HOST, Secret, chain, roots, trusting


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secret(tmp_path: Path, authority: trustme.CA) -> Secret:
    secret = Secret(tmp_path)
    secret.issue(authority, client_ca=authority)
    return secret


async def limits(serving: Serving, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    """Make one call over a connection of its own, and return how it ended."""
    # Equal channels of a process share connections, and so handshakes.
    alone = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(serving.app.addresses[0], credentials, alone) as channel:
        call = ModelServiceStub(channel).GetLimits(GetLimitsRequest(), timeout=10)
        return await call.code()


async def test_who_trusts_the_authority_is_served(secret: Secret, authority: trustme.CA) -> None:
    async with run_server(tls=secret.options(), credentials=trusting(authority)) as serving:
        answer = await serving.models.GetLimits(GetLimitsRequest())
        assert answer.limits.max_steps == 100
        assert serving.lines("listening")[0]["tls"] is True


async def test_who_trusts_another_refuses_the_server(
    secret: Secret, authority: trustme.CA, stranger: trustme.CA
) -> None:
    async with run_server(tls=secret.options(), credentials=trusting(authority)) as serving:
        assert await limits(serving, trusting(stranger)) == grpc.StatusCode.UNAVAILABLE
        async with grpc.aio.insecure_channel(serving.app.addresses[0]) as plain:
            call = ModelServiceStub(plain).GetLimits(GetLimitsRequest(), timeout=10)
            assert await call.code() == grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_wants_a_certificate_of_its_authority(
    secret: Secret, authority: trustme.CA, stranger: trustme.CA
) -> None:
    known = trusting(authority, authority.issue_cert("caller.test"))
    async with run_server(tls=secret.options(mutual=True), credentials=known) as serving:
        assert await limits(serving, known) == grpc.StatusCode.OK
        assert await limits(serving, trusting(authority)) == grpc.StatusCode.UNAVAILABLE
        unknown = trusting(authority, stranger.issue_cert("caller.test"))
        assert await limits(serving, unknown) == grpc.StatusCode.UNAVAILABLE


async def test_the_client_speaks_mutual_tls(secret: Secret, authority: trustme.CA, tmp_path: Path) -> None:
    identity = authority.issue_cert("caller.test")
    files = {"ca": roots(authority), "cert": chain(identity), "key": identity.private_key_pem.bytes()}
    for name, content in files.items():
        (tmp_path / f"client-{name}.pem").write_bytes(content)
    ca, cert, key = (tmp_path / f"client-{name}.pem" for name in files)
    once = RetryPolicy(max_attempts=1)
    async with run_server(
        tls=secret.options(mutual=True), credentials=trusting(authority, identity)
    ) as serving:
        target = serving.app.addresses[0]
        tls = Tls(root_certificates=ca, certificate=cert, private_key=key, server_name="limner.test")
        async with AsyncClient(target, channel=ChannelSettings(tls=tls), retry=once) as client:
            portrait = await client.generate("a sailor")
            assert len(portrait.images) == 1
        anonymous = ChannelSettings(tls=Tls(root_certificates=ca))
        async with AsyncClient(target, channel=anonymous, retry=once) as client:
            with pytest.raises(Unavailable):
                await client.limits()


async def test_renewed_certificates_hold_for_new_connections_and_leave_the_old_ones(
    secret: Secret, authority: trustme.CA, stranger: trustme.CA
) -> None:
    async with run_server(tls=secret.options(), credentials=trusting(authority)) as serving:
        secret.issue(stranger)
        assert await limits(serving, trusting(stranger)) == grpc.StatusCode.OK
        assert await limits(serving, trusting(authority)) == grpc.StatusCode.UNAVAILABLE
        assert len(serving.lines("certificate_renewed")) == 1
        await serving.models.GetLimits(GetLimitsRequest())


async def test_a_renewed_authority_of_clients_holds(
    secret: Secret, authority: trustme.CA, stranger: trustme.CA
) -> None:
    known = trusting(authority, authority.issue_cert("caller.test"))
    newcomer = trusting(authority, stranger.issue_cert("caller.test"))
    async with run_server(tls=secret.options(mutual=True), credentials=known) as serving:
        assert await limits(serving, newcomer) == grpc.StatusCode.UNAVAILABLE
        secret.issue(authority, client_ca=stranger)
        assert await limits(serving, newcomer) == grpc.StatusCode.OK
        assert await limits(serving, known) == grpc.StatusCode.UNAVAILABLE


async def test_a_renewal_that_cannot_be_used_is_told_once_and_changes_nothing(
    secret: Secret, authority: trustme.CA
) -> None:
    trusted = trusting(authority)
    one, other = authority.issue_cert(HOST), authority.issue_cert(HOST)
    async with run_server(tls=secret.options(), credentials=trusted) as serving:
        secret.write(tls_crt=chain(one), tls_key=other.private_key_pem.bytes())
        for _ in range(2):
            assert await limits(serving, trusted) == grpc.StatusCode.OK
        (told,) = serving.lines("certificate_unusable")
        assert "tls.key_file" in told["error"]
        assert "does not belong to the certificate" in told["error"]
        secret.issue(authority)
        assert await limits(serving, trusted) == grpc.StatusCode.OK
        assert len(serving.lines("certificate_renewed")) == 1


async def test_nothing_older_than_tls_1_2(secret: Secret, authority: trustme.CA) -> None:
    async with run_server(tls=secret.options(), credentials=trusting(authority)) as serving:
        port = int(serving.app.addresses[0].rpartition(":")[2])

        def shake(version: ssl.TLSVersion) -> str | None:
            context = ssl.create_default_context(cadata=roots(authority).decode())
            context.set_alpn_protocols(["h2"])
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            with (
                socket.create_connection((HOST, port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=HOST) as secured,
            ):
                return secured.version()

        assert await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1"),
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_1)


async def test_probes_find_health_and_nothing_else_on_a_plain_port(
    secret: Secret, authority: trustme.CA
) -> None:
    listen = ListenOptions(port=0, metrics_port=-1, health_port=0)
    async with (
        run_server(tls=secret.options(mutual=True), listen=listen, wait=False,
                   credentials=trusting(authority, authority.issue_cert("caller.test"))) as serving,
        grpc.aio.insecure_channel(serving.app.side_ports.health_address) as plain,
    ):  # fmt: skip
        health = health_pb2_grpc.HealthStub(plain)
        await until_ready(serving)
        ready = await health.Check(HealthCheckRequest(service="readiness"))
        assert ready.status == HealthCheckResponse.SERVING
        # A watch stays, and so many would keep the probes out.
        watches = [health.Watch(HealthCheckRequest(service="readiness")) for _ in range(HEALTH_RPCS)]
        assert {await watch.code() for watch in watches} == {grpc.StatusCode.UNIMPLEMENTED}
        alive = await health.Check(HealthCheckRequest(service="liveness"))
        assert alive.status == HealthCheckResponse.SERVING
        call = ModelServiceStub(plain).GetLimits(GetLimitsRequest(), timeout=10)
        assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
        draining = asyncio.create_task(serving.app.drain())
        await asyncio.sleep(0)
        readiness = await health.Check(HealthCheckRequest(service="readiness"))
        assert readiness.status == HealthCheckResponse.NOT_SERVING
        await draining


async def test_the_unix_socket_stays_plain(tmp_path: Path, secret: Secret) -> None:
    listen = ListenOptions(port=0, metrics_port=-1, unix_socket=str(tmp_path / "limner.sock"))
    async with (
        run_server(tls=secret.options(), listen=listen, wait=False) as serving,
        grpc.aio.insecure_channel(serving.app.addresses[1]) as plain,
    ):
        await ModelServiceStub(plain).GetLimits(GetLimitsRequest(), timeout=10)


def told(options: dict[str, str]) -> str:
    flags = [f"--tls-{name.replace('_', '-')}={value}" for name, value in options.items()]
    with pytest.raises(ConfigError) as caught:
        load(flags, {})
    (problem,) = caught.value.problems
    return problem


def test_options_that_are_wrong_are_named(tmp_path: Path, secret: Secret, authority: trustme.CA) -> None:
    certificate, key = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    pair = {"certificate_file": certificate, "key_file": key}
    load([f"--tls-certificate-file={certificate}", f"--tls-key-file={key}"], {})
    empty, text, other, locked = (tmp_path / name for name in ("empty", "text", "other", "locked"))
    empty.touch()
    text.write_text("no PEM\n")
    issued = authority.issue_cert(HOST)
    other.write_bytes(issued.private_key_pem.bytes())
    locked.write_bytes(encrypted(issued.private_key_pem.bytes()))
    assert told({"key_file": key}) == "tls.key_file: is given without tls.certificate_file"
    assert told({"client_ca_file": key}) == "tls.client_ca_file: is given without tls.certificate_file"
    assert told({"certificate_file": certificate}).startswith("tls.key_file: is not given")
    for name in ("certificate_file", "key_file", "client_ca_file"):
        assert told(pair | {name: "/no/such"}) == f"tls.{name}: /no/such: No such file or directory"
        assert told(pair | {name: str(empty)}) == f"tls.{name}: {empty} is empty"
    for name in ("certificate_file", "client_ca_file"):
        assert told(pair | {name: str(text)}) == f"tls.{name}: {text} holds no certificate in PEM"
    assert told(pair | {"key_file": str(text)}).startswith(f"tls.key_file: {text} holds no private key")
    assert "does not belong to the certificate" in told(pair | {"key_file": str(other)})
    assert told(pair | {"key_file": str(locked)}).startswith(f"tls.key_file: {locked} is encrypted")


def encrypted(key: bytes) -> bytes:
    loaded = load_pem_private_key(key, password=None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
