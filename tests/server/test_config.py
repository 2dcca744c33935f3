from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
import trustme

from server.config import Config, ConfigError, load
from server.config.document import render
from server.config.redis import shown_address
from server.config.sources import from_environment
from server.config.table import all_options
from server.references.shared.redis_client import RedisClient
from tests.server.configuring import problems, write
from tests.server.tls import roots

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file of an authority's certificates."""
    file = tmp_path_factory.mktemp("redis") / "ca.pem"
    file.write_bytes(roots(trustme.CA()))
    return str(file)


def test_no_configuration_is_the_defaults() -> None:
    assert load([], {"PATH": "/bin"}) == Config()


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path) -> None:
    file = write(
        tmp_path, "[limits]\nmax_steps = 11\nmax_images = 2\nmin_image_side = 99\n[listen]\nhost = '::1'\n"
    )
    config = load(
        ["--config", file, "--limits-max-steps", "33"],
        {"LIMNER_LIMITS_MAX_STEPS": "22", "LIMNER_LIMITS_MAX_IMAGES": "4"},
    )
    assert config.limits.max_steps == 33
    assert config.limits.max_images == 4
    assert config.limits.min_image_side == 99
    assert config.listen.host == "::1"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, "[engine]\nbuckets = [1, 2]\n")
    assert load([], {"LIMNER_CONFIG": file}).engine.buckets == (1, 2)


def test_short_flags_lists_and_switches() -> None:
    config = load(["--port", "0", "--model", "/m", "--engine-buckets", "1, 2,8", "--log-prompts"], {})
    assert (config.listen.port, config.engine.model, config.engine.buckets) == (0, "/m", (1, 2, 8))
    assert config.log.prompts


def test_the_configuration_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().limits.max_steps = 3  # type: ignore[misc]


def test_every_unknown_key_is_named_with_its_origin_and_a_guess(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1\n[limits]\nmax_stpes = 11\n[lmits]\nmax_steps = 1\n")
    found = problems(["--config", file], {"LIMNER_LIMITS_MAX_STPES": "1"})
    assert len(found) == 4
    assert f"port ({file}): no such option" in found[0]
    assert found[1] == f"limits.max_stpes ({file}): no such option; did you mean limits.max_steps?"
    assert "lmits.max_steps" in found[2]
    assert found[3].startswith(
        "LIMNER_LIMITS_MAX_STPES (environment): no such option; did you mean LIMNER_LIMITS_MAX_STEPS"
    )


def test_an_unknown_flag_ends_the_start() -> None:
    with pytest.raises(SystemExit):
        load(["--limits-max-stpes", "1"], {})


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("LIMNER_LISTEN_PORT", "65536", "listen.port (LIMNER_LISTEN_PORT): Expected `int` <= 65535"),
        ("LIMNER_LISTEN_PORT", "abc", "Expected `int`, got `str`, found 'abc'"),
        ("LIMNER_DRAIN_GRACE_SECONDS", "-1", "Expected `float` >= 0.0"),
        ("LIMNER_LIMITS_MAX_PROMPT_CHARACTERS", "100001", "Expected `int` <= 100000"),
        ("LIMNER_LOG_LEVEL", "loud", "log.level (LIMNER_LOG_LEVEL): Invalid enum value 'loud'"),
        ("LIMNER_LOG_PROMPTS", "perhaps", "log.prompts"),
        ("LIMNER_ENGINE_BUCKETS", "1,0", "engine.buckets"),
    ],
)
def test_a_bad_value_is_named_with_its_problem(variable: str, value: str, problem: str) -> None:
    assert problem in problems([], {variable: value})[0]


def test_a_file_of_the_wrong_type_or_syntax_is_named(tmp_path: Path) -> None:
    assert (
        "Expected `int`, got `str`"
        in problems(["--config", write(tmp_path, "[limits]\nmax_steps='5'\n")], {})[0]
    )
    assert "limner.toml" in problems(["--config", write(tmp_path, "[limits")], {})[0]
    assert "No such file" in problems(["--config", str(tmp_path / "absent.toml")], {})[0]


def test_options_that_contradict_each_other_are_refused() -> None:
    assert "limits.max_message_bytes" in problems(["--limits-max-image-bytes", str(64 << 20)], {})[0]
    assert "max_concurrent_rpcs" in problems(["--admission-max-requests-in-flight", "1024"], {})[0]
    assert "restart_delay_max" in problems(["--engine-restart-delay-seconds", "60"], {})[0]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--redis-url", "http://redis:6379"], "redis.url: is not redis://"),
        (["--redis-url", "redis://:open-sesame@redis:x"], "redis.url: its port"),
        (["--redis-url", "redis://redis?password=open-sesame"], "redis.url: has a query"),
        (
            ["--redis-url", "redis://redis", "--redis-password-file", "/no/such"],
            "redis.password_file: /no/such",
        ),
        (
            ["--redis-url", "redis://redis", "--redis-seal-key-file", "/dev/null"],
            "redis.seal_key_file: /dev/null is",
        ),
        (["--redis-timeout-seconds", "0.06"], "redis.timeout_seconds"),
        (["--redis-url", "redis://[::1"], "redis.url: is not redis://"),
        (["--redis-url", "redis:6379"], "redis.url: is not redis://"),
        (["--redis-url", "redis:///0"], "redis.url: is not redis://"),
        (["--redis-url", "unix://run/redis.sock"], "redis.url: is not redis://"),
        (["--redis-url", "redis://redis/first"], "redis.url: its path is no number"),
        (["--redis-url", "redis://redis/0/1"], "redis.url: its path is no number"),
        (["--redis-url", "redis://redis/0#1"], "redis.url: has a query"),
        (["--redis-url", "redis://redis", "--redis-username", "ada"], "redis.username: is given without"),
        (
            ["--redis-url", "redis://:open-sesame@redis", "--redis-password", "open-sesame"],
            "redis.password: is given beside",
        ),
        (
            ["--redis-url", "redis://ada@redis", "--redis-password-file", __file__],
            "redis.password_file: is given beside",
        ),
        (
            [
                "--redis-url",
                "redis://:sesame@redis",
                "--redis-username=ada",
                "--redis-password-file",
                __file__,
            ],
            "redis.username: is given beside",
        ),
        (
            ["--redis-url", "rediss://redis", "--redis-ca-file", "/dev/null"],
            "redis.ca_file: /dev/null is empty",
        ),
        (["--redis-url", "rediss://redis", "--redis-ca-file", __file__], "holds no certificate in PEM"),
        (
            ["--redis-url", "redis://redis", "--redis-ca-file", "{ca}"],
            "redis.ca_file: is given without rediss://",
        ),
    ],
)
def test_redis_that_cannot_be_used_is_refused_without_telling_secrets(
    flags: list[str], problem: str, ca: str
) -> None:
    told = problems([flag.format(ca=ca) for flag in flags], {})
    assert problem in told[0]
    assert "sesame" not in str(told)


@pytest.mark.parametrize(
    "flags",
    [
        ["--redis-url", "redis://redis"],
        ["--redis-url", "redis://ada:open-sesame@redis:6379/3"],
        ["--redis-url", "rediss://[::1]:6380/", "--redis-ca-file", "{ca}"],
        [
            "--redis-url",
            "unix:///run/redis.sock",
            "--redis-username",
            "ada",
            "--redis-password",
            "open-sesame",
        ],
    ],
)
def test_redis_that_can_be_used_is_taken(flags: list[str], ca: str) -> None:
    RedisClient(load([flag.format(ca=ca) for flag in flags], {}).redis)


def test_the_address_of_redis_is_shown_without_secrets() -> None:
    config = load(["--redis-url", "rediss://ada:open-sesame@[::1]:6380/2"], {})
    assert shown_address(config.redis) == "rediss://[::1]:6380/2"


def test_what_kubernetes_sets_beside_a_service_is_no_option() -> None:
    options = {option.key: option for option in all_options()}
    links = {
        "LIMNER_SERVER": "localhost:50051",
        "LIMNER_SERVICE_HOST": "10.0.0.1",
        "LIMNER_SERVICE_PORT": "50051",
        "LIMNER_SERVICE_PORT_GRPC": "50051",
        "LIMNER_PORT": "tcp://10.0.0.1:50051",
        "LIMNER_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "LIMNER_PORT_50051_TCP_PROTO": "tcp",
        "LIMNER_METRICS_PORT_9464_TCP_ADDR": "10.0.0.1",
    }
    assert list(from_environment(links, options)) == []


def test_every_option_is_described_and_its_names_are_unique() -> None:
    options = all_options()
    assert all(option.description.endswith((".", ".)")) for option in options)
    names = [name for option in options for name in (option.key, option.variable, *option.flags)]
    assert len(names) == len(set(names))
    assert {option.section for option in options} == {field.name for field in msgspec.structs.fields(Config)}


def test_the_documentation_is_up_to_date() -> None:
    page = ROOT / "docs/configuration.md"
    assert page.read_text() == render(), "run: python -m server.config.document > docs/configuration.md"


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317"}, "http://all:4317"),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4317",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317",
            },
            "http://traces:4317",
        ),
        (
            {
                "LIMNER_TRACING_ENDPOINT": "https://ours:4317",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317",
            },
            "https://ours:4317",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317", "LIMNER_TRACING_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317", "OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"LIMNER_TRACING_ENDPOINT": "http://ours:4317", "OTEL_SDK_DISABLED": "TRUE"}, ""),
        ({"LIMNER_TRACING_ENDPOINT": "http://ours:4317", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_the_collector_may_be_named_as_opentelemetry_does(environment: dict[str, str], endpoint: str) -> None:
    warnings: list[str] = []
    assert load([], environment, warn=warnings.append).tracing.endpoint == endpoint
    assert warnings == []


@pytest.mark.parametrize("endpoint", ["collector", "ftp://a:1", "http://", "http://a:1/v1/traces", "a:b"])
def test_a_collector_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"tracing\.endpoint"):
        load([], {"LIMNER_TRACING_ENDPOINT": endpoint})
    warnings: list[str] = []
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    assert load([], named, warn=warnings.append).tracing.endpoint == ""
    assert warnings == [
        f"OTEL_EXPORTER_OTLP_ENDPOINT: {endpoint!r} is no address of a collector for OTLP/gRPC; nothing is traced to it"
    ]
    ours = {"LIMNER_TRACING_ENDPOINT": "http://ours:4317"}
    assert load([], named | ours, warn=warnings.append).tracing.endpoint == "http://ours:4317"
    assert len(warnings) == 1


def test_a_collector_that_others_name_needs_no_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    warnings: list[str] = []
    named = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4317"}
    assert load([], named, warn=warnings.append).tracing.endpoint == ""
    assert "pip install 'limner[tracing]'" in warnings[0]
