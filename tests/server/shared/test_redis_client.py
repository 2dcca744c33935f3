"""What redis-py is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio.connection import SSLConnection

from server.config.redis_options import RedisOptions
from server.references.shared.connection import FaultKind, RedisFault
from server.references.shared.redis_client import RedisClient
from tests.server.shared.real_redis import free_port


async def test_tls_checks_the_certificate_and_the_password_may_change(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    client = RedisClient(
        RedisOptions(
            url="rediss://redis:6380/3", username="ada", password_file=str(secret), ca_file="/ca.pem"
        )
    )
    connection = client._pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.host, connection.port, connection.db) == ("redis", 6380, 3)
    assert (connection.ca_certs, connection.cert_reqs, connection.check_hostname) == ("/ca.pem", 2, True)
    credentials = connection.credential_provider
    assert credentials is not None
    assert credentials.get_credentials() == ("ada", "first")
    secret.write_text("second")
    assert credentials.get_credentials() == ("ada", "second")
    await client.close()


async def test_nobody_there_is_a_fault_at_the_first_try() -> None:
    client = RedisClient(RedisOptions(url=f"redis://127.0.0.1:{free_port()}"))
    with pytest.raises(RedisFault) as caught:
        await client.run(("GET", "a"))
    assert caught.value.kind is FaultKind.CONNECTION
    await client.close()
