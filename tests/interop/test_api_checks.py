"""What the API is compared with, and that a breaking change is found."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.needs import need
from tools import buf, npm


class Repository:
    """A git repository of its own with the project's API in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proto = folder / "proto" / "limner" / "v1" / "portrait.proto"
        shutil.copytree(
            npm.ROOT / "proto", folder / "proto", ignore=shutil.ignore_patterns("*.py*", "*.egg-info")
        )
        shutil.copytree(npm.ROOT / "third_party", folder / "third_party")
        shutil.copy(npm.ROOT / "buf.yaml", folder)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.folder), *identity, "-c", "core.hooksPath=/dev/null", *arguments]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, old: str, new: str) -> None:
        text = self.proto.read_text()
        assert old in text
        self.proto.write_text(text.replace(old, new))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_the_first_version_has_nothing_to_be_compared_with(repository):
    assert buf.baseline(repository.folder) == (None, "there is no commit yet")
    repository.commit("first")
    assert buf.baseline(repository.folder) == (None, "this is its first version")


def test_before_a_tag_the_last_change_is_checked(repository):
    first = repository.commit("first")
    repository.edit("string prompt = 1;", "string prompts = 1;")
    assert buf.baseline(repository.folder)[0] == first
    repository.commit("rename a field")
    (repository.folder / "other").write_text("unrelated")
    repository.commit("unrelated")
    assert buf.baseline(repository.folder) == (first, "before its last change")


def test_a_tag_stays_the_measure(repository):
    repository.commit("first")
    repository.git("tag", "v0.1.0")
    repository.edit("string prompt = 1;", "string prompts = 1;")
    repository.commit("rename a field")
    assert buf.baseline(repository.folder) == ("v0.1.0", "the newest tag")


def test_a_declared_break_ends_the_comparison(repository):
    repository.commit("first")
    repository.git("tag", "v0.1.0")
    repository.edit("string prompt = 1;", "string prompts = 1;")
    declared = repository.commit("rename a field\n\nAPI-Break: nobody uses it yet")
    assert buf.baseline(repository.folder) == (declared, "which declares a break")


def test_a_shallow_clone_does_not_pass_for_a_first_version(repository, tmp_path):
    repository.commit("first")
    repository.edit("string prompt = 1;", "string prompts = 1;")
    repository.commit("rename a field")
    shallow = tmp_path / "shallow"
    repository.git("clone", "-q", "--depth", "1", repository.folder.as_uri(), str(shallow))
    assert buf.baseline(shallow) == (None, buf.SHALLOW)


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_in_ci_a_shallow_clone_fails(monkeypatch, capsys, ci, code):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(npm, "binary", lambda *_: Path("buf"))
    monkeypatch.setattr(buf, "run", lambda *_: 0)
    monkeypatch.setattr(buf, "baseline", lambda _: (None, buf.SHALLOW))
    assert buf.main([]) == code
    assert "--unshallow" in capsys.readouterr().out


def test_a_removed_field_is_found(repository):
    command = need(npm.binary(npm.TOOLS, "buf"), "buf")
    repository.commit("first")
    against = f"{buf.git_folder(repository.folder)}#ref=HEAD"

    def breaking() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, "breaking", "--against", against],
            cwd=repository.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert breaking().returncode == 0
    repository.edit("  string negative_prompt = 2;\n", "")
    found = breaking()
    assert found.returncode != 0
    assert "negative_prompt" in found.stdout


def test_lock_files_name_no_registry():
    for folder in npm.FOLDERS:
        lock = json.loads((folder / "package-lock.json").read_text())
        for package in lock["packages"].values():
            package.pop("funding", None)
        text = json.dumps(lock)
        assert '"resolved"' not in text
        assert "://" not in text
