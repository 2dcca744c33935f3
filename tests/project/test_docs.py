"""The documents' links lead somewhere, and no committed file knows the machine that it was made on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name / "README.md" for name in ("deploy", "engine/embedded", "clients/python")),
]
LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")
# In pieces, so that this file does not name them itself.
FOREIGN = re.compile(
    "|".join(
        (
            "/" + r"work/(?:main|shared|\.)",
            "/" + r"home/(?!limner)\w+/",
            "/" + r"tmp/bash_jobs",
            r"https?://[\w.:-]*(?:arti" + "factory|pypi|npm" + r"js|registry)[\w.:-]*/",
        )
    )
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for match in LINK.finditer(text):
        link = match[1] or match[2]
        path = link.partition("#")[0]
        if not re.match(r"[a-z]+:", link) and path and not (document.parent / path).exists():
            broken.append(link)
    assert broken == []


def test_no_committed_file_names_this_machine_or_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    named = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content[:8192] and (found := FOREIGN.search(content.decode(errors="replace"))):
            named.append(f"{name}: {found[0]}")
    assert named == []
