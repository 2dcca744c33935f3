"""The `limner` command: what it prints, what it saves, what it exits with."""

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from limner.v1 import portrait_pb2
from limner_client import Progress, Queued
from limner_client.cli import main
from limner_client.cli.progress import ProgressLine

from tests.client.fakes import PICTURE, Refusal

CODE = grpc.StatusCode


@pytest.fixture
def limner(target, monkeypatch, tmp_path, capsys):
    """Run the command in a folder of its own that holds ada.png; give exit code, stdout and stderr."""
    monkeypatch.setenv("LIMNER_SERVER", target)
    monkeypatch.chdir(tmp_path)
    Path("ada.png").write_bytes(PICTURE)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


GENERATED = """\
portrait.png  128x128  seed 7
model      embedded, dpmpp_2m, 20 steps, guidance 5.6, ip-adapter scale 0.8, adapter base
reference  e36274b5a276, cache miss, uploaded
time       0.300 s; in ms: reference 0.4, queue 0.0, prompt 0.0, denoise 250.0, decode 0.0, encode 0.0
batch      2.0 rows on average
task       task-1
warning    The reference is small. Use a larger one.
"""


def test_generate(limner):
    code, out, err = limner(
        "generate", "a sailor", "-r", "ada.png", "--seed", "7", "--steps", "20", "--ip-adapter-scale", "0.8"
    )
    assert (code, err) == (0, "")
    assert out == GENERATED
    assert Path("portrait.png").read_bytes() == PICTURE


def test_generate_json(limner, fake):
    code, out, err = limner(
        "generate", "a sailor", "-r", "ada.png", "-o", "out.webp", "-n", "2", "--seed", "7", "--json",
        "--size", "64x96", "--sampler", "unipc",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    content = json.loads(out)
    assert re.fullmatch(r"[0-9a-f]{32}", content.pop("request_id"))
    (use,) = content.pop("references")
    digest = content["reference"].pop("digest")
    assert use == {**content["reference"], "digest": digest}
    assert content == {
        "task_id": "task-1",
        "images": [
            {"index": index, "format": "webp", "width": 64, "height": 96, "seed": 7 + index,
             "size_bytes": len(PICTURE), "path": f"out-{index}.webp"}
            for index in range(2)
        ],
        "parameters": {"model": "embedded", "sampler": "unipc", "steps": 2, "guidance_scale": 5.6,
                       "guidance_rescale": 0.0, "guidance_start": 0.0, "guidance_end": 1.0,
                       "ip_adapter_scale": 1.0, "width": 64, "height": 96, "seed": 7,
                       "deterministic": False, "prompt": "a sailor", "adapter": "base",
                       "reference_layers": "all"},
        "reference": {"cache_outcome": "hit", "weight": 1.0},
        "timings": {"decode_input_seconds": 0.0, "reference_seconds": 0.0004, "queue_seconds": 0.0,
                    "encode_prompt_seconds": 0.0, "denoise_seconds": 0.25, "decode_latents_seconds": 0.0,
                    "encode_output_seconds": 0.0, "total_seconds": 0.3, "mean_batch_rows": 2.0},
        "upload_outcome": "miss",
        "warnings": [{"code": "reference_small", "field": "portrait.reference_image",
                      "message": "The reference is small.", "action": "Use a larger one."}],
    }  # fmt: skip
    assert digest in fake.known
    assert Path("out-1.webp").read_bytes() == PICTURE


def test_several_references_with_weights_adapter_and_layers(limner, fake):
    Path("bob.png").write_bytes(PICTURE + b"2")
    code, out, _ = limner(
        "generate", "a sailor", "-r", "ada.png", "-r", "bob.png", "--reference-weights", "1,0.5",
        "--adapter", "plus", "--reference-layers", "style",
    )  # fmt: skip
    assert code == 0
    spec = fake.named("GenerateStream")[-1].portrait
    assert [reference.weight for reference in spec.references] == [1.0, 0.5]
    assert (spec.adapter, spec.reference_layers) == ("plus", portrait_pb2.REFERENCE_LAYERS_STYLE)
    assert {request.adapter for request in fake.named("UploadReference")} == {"plus"}
    first, second = [line for line in out.splitlines() if line.startswith("reference")]
    assert ", weight 1, cache hit, uploaded" in first
    assert ", weight 0.5, cache hit" in second
    assert "adapter plus, layers style" in out


def test_weights_that_do_not_fit_the_references_are_bad_usage(limner, capsys):
    code, _, err = limner("generate", "a sailor", "-r", "ada.png", "--reference-weights", "1,0.5")
    assert (code, "2 weights for 1 references" in err) == (2, True)
    with pytest.raises(SystemExit, match="2"):
        limner("generate", "a sailor", "-r", "ada.png", "--reference-weights", "much")
    assert "'much' is no list of weights such as 1,0.5" in capsys.readouterr().err


def test_regions(limner, fake, capsys):
    Path("bob.png").write_bytes(PICTURE + b"2")
    both = ("generate", "a sailor", "-r", "ada.png", "-r", "bob.png", "--reference-regions")
    assert limner(*both, "0,0,.5,1;")[0] == 0
    first, second = fake.named("GenerateStream")[-1].portrait.references
    assert (first.region.left, first.region.right, first.region.bottom) == (0.0, 0.5, 1.0)
    assert not second.HasField("region")
    code, _, err = limner(*both, "0,0,.5,1")
    assert (code, "1 regions for 2 references" in err) == (2, True)
    with pytest.raises(SystemExit, match="2"):
        limner(*both, "0,0,1;")
    assert "'0,0,1' is no region such as 0,0,0.5,1" in capsys.readouterr().err


def test_an_upload_for_an_adapter_of_a_model(limner, fake):
    assert limner("upload", "ada.png", "--adapter", "plus", "--model", "small")[0] == 0
    (upload,) = fake.named("UploadReference")
    assert (upload.adapter, upload.model) == ("plus", "small")


def test_upload_then_generate_by_digest_then_delete(limner):
    code, out, _ = limner("upload", "ada.png")
    digest, picture = out.splitlines()
    assert (code, picture) == (0, f"picture    png 128x96, {len(PICTURE)} bytes, cache miss")
    assert limner("generate", "a sailor", "-r", digest)[0] == 0
    _, out, _ = limner("upload", "ada.png", "--json")
    assert json.loads(out) == {
        "digest": digest, "width": 128, "height": 96, "size_bytes": len(PICTURE), "format": "png",
        "warnings": [], "create_time": "2026-11-23T07:00:00+00:00", "cache_outcome": "hit",
    }  # fmt: skip
    assert limner("delete", digest)[:2] == (0, "forgotten\n")
    assert limner("delete", digest)[0] == 3


INFO = """\
model embedded (sd1), the default
  adapters  base
  layers    all, style
  regions   no
  size      128x128
  sizes     64 to 256 in steps of 8
  steps     20
  guidance  5.6
  prompt    77 tokens
  samplers  dpmpp_2m (1-100)
  buckets   1, 2, 4
  weights   abc123
limits
  max_image_bytes         16777216
  max_image_pixels        50000000
  min_image_side          16
  max_prompt_characters   2000
  max_steps               100
  max_images              8
  max_guidance_scale      30.0
  max_ip_adapter_scale    2.0
  max_requests_in_flight  256
  max_references          4
  max_reference_weight    1.6
"""


def test_info(limner):
    assert limner("info") == (0, INFO, "")
    content = json.loads(limner("info", "--json")[1])
    assert content["models"][0]["samplers"] == [{"sampler": "dpmpp_2m", "min_steps": 1, "max_steps": 100}]
    assert content["limits"]["max_images"] == 8


def test_health(limner, fake):
    assert limner("health") == (0, "live: yes, ready: yes\n", "")
    fake.health.set("readiness", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert limner("health", "--json") == (1, '{"live": true, "ready": false}\n', "")


def test_health_out_of_reach(limner):
    code, out, err = limner("health", "--server", "127.0.0.1:1")
    assert (code, out) == (5, "")
    assert "(UNAVAILABLE)" in err


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal(CODE.INTERNAL, "INTERNAL"), 1),
        (Refusal(CODE.INVALID_ARGUMENT, "INVALID_FIELD"), 2),
        (Refusal(CODE.NOT_FOUND, "MODEL_NOT_FOUND"), 3),
        (Refusal(CODE.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=999), 4),
        (Refusal(CODE.DEADLINE_EXCEEDED), 6),
    ],
)
def test_exit_codes(limner, fake, refusal, code):
    fake.refusals.append(refusal)
    assert limner("info")[0] == code


def test_errors_name_fields_and_ids(limner, fake):
    refusal = Refusal(
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "1 field is invalid",
        violations=(("portrait.steps", "is 900; the limit is 1 to 100"),),
        metadata={"request_id": "r-1", "task_id": "t-1"},
    )
    fake.refusals += [refusal, refusal]
    code, out, err = limner("generate", "a sailor", "--steps", "900")
    assert (code, out) == (2, "")
    assert err == (
        "limner: the request is invalid (INVALID_FIELD)\n"
        "  portrait.steps: is 900; the limit is 1 to 100\n"
        "  request r-1, task t-1\n"
    )
    assert not Path("portrait.png").exists()
    _, out, err = limner("generate", "a sailor", "--steps", "900", "--json")
    assert out == ""
    assert json.loads(err)["error"] == {
        "type": "InvalidRequest", "message": "1 field is invalid", "code": "INVALID_ARGUMENT",
        "reason": "INVALID_FIELD", "request_id": "r-1", "task_id": "t-1", "retry_after_seconds": None,
        "violations": [{"field": "portrait.steps", "description": "is 900; the limit is 1 to 100"}],
        "metadata": {"request_id": "r-1", "task_id": "t-1"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["generate", "x", "-r", "missing.png"], "missing.png"),
        (["generate", "x", "-o", "nowhere/out.png"], "no such folder"),
        (["generate", "x", "-o", "out.gif"], "names no format"),
        (["generate", "x", "--steps", str(2**40)], "range"),
        (["info", "--timeout", "-1"], "timeout"),
        (["info", "--tls-cert", "ada.png"], "go together"),
    ],
)
def test_local_faults(limner, fake, argv, says):
    code, out, err = limner(*argv)
    assert (code, out) == (2, "")
    assert says in err
    assert not fake.calls


@pytest.mark.parametrize("argv", [[], ["paint"], ["generate", "x", "--size", "big"], ["generate"]])
def test_usage(limner, argv):
    with pytest.raises(SystemExit) as caught:
        limner(*argv)
    assert caught.value.code == 2


def test_help_gives_the_advice_and_the_exit_codes(limner, capsys):
    for argv, says in ((["generate", "-h"], "front-facing"), (["-h"], "130  interrupted")):
        with pytest.raises(SystemExit):
            limner(*argv)
        assert says in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_line_is_drawn_on_terminals_only():
    news = [
        Queued(task_id="t", position=1, starts_in_seconds=0.5, finishes_in_seconds=2),
        Progress(task_id="t", step=1, steps=2),
    ]
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        progress = ProgressLine(out)
        for event in news:
            progress.show(event)
        progress.clear()
    first, second, wiped = terminal.getvalue().split("\r")[1:4]
    assert first == "queued, 1 ahead, done in about 2.0 s"
    assert second == "[" + "#" * 15 + "." * 15 + "] step 1 of 2"
    assert wiped.strip() == ""
    assert pipe.getvalue() == ""


def test_ctrl_c_stops_the_server_too(target, fake, tmp_path):
    fake.hangs = True
    # A test run in the background of a shell ignores SIGINT, and its children inherit that. They undo it themselves:
    # `preexec_fn` would fork this process, and gRPC's handlers of a fork can leave the server in it deaf.
    command = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from limner_client.cli import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, "generate", "a sailor", "--server", target],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert fake.started.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "limner: interrupted\n")
    assert fake.cancelled.wait(5)
    assert list(tmp_path.iterdir()) == []
