"""`buf curl` knows nothing but the server's reflection, and generates a portrait with it."""

import base64
import io
import json

import PIL.Image

PORTRAIT = {
    "prompt": "portrait in a library, calm, warm light",
    "steps": 4,
    "sampler": "SAMPLER_EULER",
    "seed": "11",
}


def picture(image: dict) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(image["data"])), formats=["PNG"])


def test_generate(buf_curl, reference_base64):
    request = {"portrait": {**PORTRAIT, "referenceImage": reference_base64}}
    answer = buf_curl("PortraitService/Generate", request)
    assert answer.code == 0, answer.error
    (message,) = answer.messages
    (image,) = message["images"]
    assert picture(image).size == (image["width"], image["height"])
    assert image["seed"] == "11"
    assert message["taskId"]
    assert message["summary"]["reference"]["cacheOutcome"].startswith("CACHE_OUTCOME_")
    assert message["summary"]["parameters"]["steps"] == 4


def test_stream(buf_curl, reference_base64):
    request = {"portrait": {**PORTRAIT, "referenceImage": reference_base64}, "previewInterval": 2}
    answer = buf_curl("PortraitService/GenerateStream", request)
    assert answer.code == 0, answer.error
    kinds = [(message.keys() - {"taskId"}).pop() for message in answer.messages]
    assert kinds[0] == "queued"
    assert kinds[-1] == "completed"
    assert kinds.count("image") == 1
    assert {"progress", "preview"} <= set(kinds)
    assert [message["progress"]["step"] for message in answer.messages if "progress" in message][-1] == 4


def test_models(buf_curl):
    models = buf_curl("ModelService/ListModels", {})
    assert models.code == 0, models.error
    assert models.messages[0]["models"][0]["samplers"]


def test_an_error_tells_the_field(buf_curl):
    answer = buf_curl("PortraitService/Generate", {"portrait": {"prompt": "", "steps": 4}})
    error = json.loads(answer.error)
    assert error["code"] == "invalid_argument"
    assert "portrait.prompt" in error["message"]
    assert {detail["type"] for detail in error["details"]} == {
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
    }
