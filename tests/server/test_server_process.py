"""``limner-server`` as a process of its own, with an engine process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest
from limner.v1.portrait_service_pb2_grpc import PortraitServiceStub
from limner_client.cli import main
from limner_client.cli.exits import OK, UNAVAILABLE

from tests.server.answers import refusal_of
from tests.server.processes import PATIENCE, ROOT, generate, is_alive, process
from tests.server.tls import Secret

HEALTH_SECONDS = 10.0
"""A bound that a busy machine keeps as well; it is far below what a model takes to load."""


def test_health_is_told_before_the_engine_is_there(tmp_path: Path) -> None:
    with process(tmp_path) as server, server.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(HealthCheckRequest(service="liveness"), wait_for_ready=True, timeout=PATIENCE)
        seconds = time.monotonic() - server.began
        print(f"\nfrom exec to the first health answer: {seconds:.2f} s")
        assert seconds < HEALTH_SECONDS
        assert answer.status == HealthCheckResponse.SERVING
        server.until_ready()
        assert len(generate(channel).images) == 1
        assert 'grpc_server_handled_total{grpc_code="OK"' in server.metrics()
        engine = server.engine_pid()
        assert server.stop() == 0
        assert not is_alive(engine)
        assert not server.ready_file.exists()
        log = server.log_file.read_text()
        assert [line for line in log.splitlines() if not line.startswith("{")] == []
        assert [line["message"] for line in server.lines()][-1] == "stopped"


def test_a_killed_engine_costs_latency_and_no_error(tmp_path: Path) -> None:
    with process(tmp_path) as server, server.channel() as channel, ThreadPoolExecutor(16) as threads:
        server.until_ready()
        answers = [threads.submit(generate, channel, "SLOW", steps=50, seed=number) for number in range(16)]
        server.until(lambda: server.in_flight() == 16)
        pid = server.engine_pid()
        os.kill(pid, signal.SIGKILL)
        server.until(lambda: server.engine_pid() != pid)
        assert [answer.result().images[0].seed for answer in answers] == list(range(16))
        assert server.lines("engine_lost")[0]["to_replay"] > 0
        assert server.stop() == 0


def test_sigterm_with_calls_in_flight_loses_none(tmp_path: Path) -> None:
    with process(tmp_path) as server, server.channel() as channel, ThreadPoolExecutor(16) as threads:
        server.until_ready()
        answers = [threads.submit(generate, channel, "SLOW", steps=100, seed=number) for number in range(16)]
        server.until(lambda: server.in_flight() == 16)
        assert server.stop() == 0
        assert [answer.result().images[0].seed for answer in answers] == list(range(16))
        assert [line["code"] for line in server.lines("call")] == ["OK"] * 16
        assert not server.lines("drain_incomplete")


def test_a_model_that_is_not_there_ends_the_server(tmp_path: Path) -> None:
    with process(tmp_path, "--model", str(tmp_path / "typo"), module="server") as server:
        assert server.process.wait(PATIENCE) == 4
        log = server.end_of_log()
        assert str(tmp_path / "typo") in log
        assert [line["how"] for line in server.lines("engine_cannot_start")] == ["exit status 2"]
        assert len(server.lines("engine_started")) == 1
        assert not server.ready_file.exists()


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with process(tmp_path, "--drain-grace-seconds", "600") as server, server.channel() as channel:
        server.until_ready()
        call = PortraitServiceStub(channel).Generate.future(
            GenerateRequest(portrait=PortraitSpec(prompt="HOLD"))
        )
        server.until(lambda: server.in_flight() == 1)
        engine = server.engine_pid()
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.lines("draining"))
        assert server.process.poll() is None
        assert server.stop() == 0
        assert not is_alive(engine)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert refusal_of(call).reason == "DRAINING"


def test_the_engine_dies_with_its_server(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        server.until_ready()
        engine = server.engine_pid()
        server.process.kill()
        server.process.wait()
        end = time.monotonic() + PATIENCE
        while is_alive(engine):
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        server.until(lambda: server.told()["grpc"])
        port = server.told()["grpc"][0].rpartition(":")[2]
        command = [sys.executable, "-m", "tests.server.serve_fake", "--port", port, "--metrics-port", "-1"]
        second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
        assert second.returncode == 3
        assert f"cannot listen on 127.0.0.1:{port}" in second.stderr


def test_a_bad_configuration_ends_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "--listen-port", "70000"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert run.returncode == 2
    assert re.fullmatch(r"limner-server: listen.port \(flags\): Expected `int` <= 65535.*\n", run.stderr)
    version = subprocess.run(
        [sys.executable, "-m", "server", "--version"], capture_output=True, text=True, cwd=ROOT
    )
    assert version.stdout.startswith("limner-server ")


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "limner.sock"
    with process(tmp_path, "--listen-unix-socket", str(path)) as server:
        server.until_ready()
        with grpc.insecure_channel(server.told()["grpc"][1]) as channel:
            assert len(generate(channel).images) == 1


def test_the_command_over_tls_across_a_renewal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = trustme.CA(), trustme.CA()
    secret = Secret(tmp_path)
    secret.issue(old)
    for name, authority in (("old", old), ("new", new)):
        authority.cert_pem.write_to_path(tmp_path / f"{name}.pem")
    options = secret.options()
    files = ("--tls-certificate-file", options.certificate_file, "--tls-key-file", options.key_file)
    with process(tmp_path, *files) as server:
        server.until_ready()

        def health(*flags: str) -> int:
            return main(["health", "--server", server.told()["grpc"][0], *flags])

        assert health("--tls-ca", str(tmp_path / "old.pem")) == OK
        secret.issue(new)
        named = ("--tls-server-name", "limner.test")
        assert health("--tls-ca", str(tmp_path / "new.pem"), *named) == OK
        assert health("--tls-ca", str(tmp_path / "old.pem")) == UNAVAILABLE
        assert health() == UNAVAILABLE
        assert len(server.lines("certificate_renewed")) == 1
        assert server.stop() == 0
        # gRPC's own words about handshakes that failed would stand between the lines of our log.
        assert [line for line in server.log_file.read_text().splitlines() if not line.startswith("{")] == []


def test_a_key_of_another_certificate_ends_the_start(tmp_path: Path) -> None:
    one, other = (trustme.CA().issue_cert("limner.test") for _ in range(2))
    one.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    other.private_key_pem.write_to_path(tmp_path / "tls.key")
    files = [f"--tls-certificate-file={tmp_path / 'tls.crt'}", f"--tls-key-file={tmp_path / 'tls.key'}"]
    run = subprocess.run(
        [sys.executable, "-m", "server", *files], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert run.returncode == 2
    assert run.stderr.startswith("limner-server: tls.key_file: ")
    assert "does not belong to the certificate" in run.stderr


def test_bad_input_reaches_the_caller_across_processes(tmp_path: Path) -> None:
    with process(tmp_path) as server, server.channel() as channel:
        server.until_ready()
        with pytest.raises(grpc.RpcError) as caught:
            generate(channel, steps=0)
        assert refusal_of(caught.value).violations == {
            "portrait.steps": "is 0; the limit is 1 to 100 steps of dpmpp_2m"
        }  # type: ignore[arg-type]
