"""The connection to a real Redis, by redis-py. Imported only where Redis is configured."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.maint_notifications import MaintNotificationsConfig

from server.config.redis_options import RedisOptions
from server.references.shared.connection import Command, ErrorReply, FaultKind, RedisFault

_SOCKET_SECONDS = 1.0
"""A backstop; callers have limits of their own, far below."""


class _Credentials(CredentialProvider):
    """Reads the password at each new connection, so that a file may be replaced while the server runs."""

    def __init__(self, options: RedisOptions) -> None:
        self._options = options

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._options.password
        if self._options.password_file:
            password = Path(self._options.password_file).read_text(encoding="utf-8").strip()
        return (self._options.username, password) if self._options.username else (password,)


class RedisClient:
    """A pool of connections to one endpoint. Connects when it is first used."""

    def __init__(self, options: RedisOptions) -> None:
        settings: dict[str, object] = {}
        if options.password or options.password_file:
            settings["credential_provider"] = _Credentials(options)
        if options.ca_file:
            settings["ssl_ca_certs"] = options.ca_file
        self._pool = BlockingConnectionPool.from_url(
            options.url,
            max_connections=options.connections,
            timeout=_SOCKET_SECONDS,
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
            # A request has one try; repeating is for the breaker's probe and the writer.
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # no HELLO: one round trip less before the first command
            driver_info=None,  # nor CLIENT SETINFO
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **settings,
        )
        self._client = Redis(connection_pool=self._pool)

    async def run(self, *commands: Command, atomic: bool = False) -> Sequence[object]:
        """Implement ``RedisConnection.run``."""
        try:
            async with self._client.pipeline(transaction=atomic) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)
        except (exceptions.TimeoutError, TimeoutError) as error:
            raise RedisFault(FaultKind.TIMEOUT, str(error) or "no answer in time") from error
        except (exceptions.InvalidResponse, exceptions.WatchError) as error:
            raise RedisFault(FaultKind.NONSENSE, f"{type(error).__name__}: {error}") from error
        except (exceptions.ConnectionError, OSError) as error:
            raise RedisFault(FaultKind.CONNECTION, f"{type(error).__name__}: {error}") from error
        except exceptions.RedisError as error:
            raise RedisFault(FaultKind.REFUSED, f"{type(error).__name__}: {error}") from error
        except Exception as error:
            # Out of a stranger's bytes the parser's int(), decode() and slices raise what they like.
            raise RedisFault(FaultKind.NONSENSE, f"{type(error).__name__}: {error}") from error
        if len(replies) != len(commands):
            raise RedisFault(FaultKind.NONSENSE, f"{len(replies)} replies to {len(commands)} commands")
        return [ErrorReply(str(reply)) if isinstance(reply, Exception) else reply for reply in replies]

    async def close(self) -> None:
        """Close the connections."""
        # Nothing more is wanted of them, and the server's end must not fail for theirs.
        with contextlib.suppress(exceptions.RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_SOCKET_SECONDS):
                await self._client.aclose()
                await self._pool.disconnect()
