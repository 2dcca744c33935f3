"""Findings: many are told in an answer that fits a caller's limit on metadata."""

from __future__ import annotations

import pytest

from server.api.checks import MAX_FINDINGS, Findings
from server.api.status import status_of
from server.errors import InvalidFieldsError

METADATA_BYTES = 8192
"""What gRPC takes by default."""


def raised(findings: Findings) -> InvalidFieldsError:
    with pytest.raises(InvalidFieldsError) as caught:
        findings.raise_any()
    return caught.value


def test_the_first_are_kept_and_the_others_counted() -> None:
    findings = Findings()
    for number in range(40):
        findings.add(f"portrait.field_{number}", "is 0", "the limit is 1")
    error = raised(findings)
    assert [violation.field for violation in error.violations] == [
        f"portrait.field_{number}" for number in range(MAX_FINDINGS)
    ]
    assert error.metadata["more_violations"] == str(40 - MAX_FINDINGS)
    assert error.message.endswith("; and 37 more")


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 300, "\U0001f600" * 64, "%" * 64])
def test_whatever_a_caller_writes_the_answer_fits(text: str) -> None:
    findings = Findings()
    for _ in range(100):
        findings.add(f"inputs[{text}]", f"is {text}", f"the limit is {text}")
    status = status_of(raised(findings))
    # As they travel: the text percent-encoded, the details in base64.
    text_bytes = sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in status.text.encode())
    assert text_bytes + len(status.details) * 4 / 3 < METADATA_BYTES - 500
