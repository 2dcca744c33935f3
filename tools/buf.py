"""Check the API with buf: its style, its format, and that it breaks no caller.

python -m tools.buf                 lint, format and breaking changes
python -m tools.buf --against REF   compare with that commit, branch or tag

The API is compared with the newest tag; before the first tag, with what it was before its last change: the
commit that is checked out where .proto files are edited, otherwise the one before the last commit that changed
them. A commit whose message has a line `API-Break: WHY` declares a break, and ends the comparison there. A shallow
clone without a tag cannot be compared: it says so, and under CI=true that is a failure.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools import npm

PROTOS = "proto/**/*.proto"
SHALLOW = "the clone is shallow, so that tags and earlier versions are out of sight; run: git fetch --unshallow --tags"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.buf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="REF", help="the commit, branch or tag to compare with")
    against = parser.parse_args(argv).against
    ci = os.environ.get("CI") == "true"
    buf = npm.binary(npm.TOOLS, "buf")
    if buf is None:
        print("left out: buf is not installed (python -m tools.install)")
        return 1 if ci else 0
    failed = run(buf, "lint") + run(buf, "format", "--diff", "--exit-code")
    base, why = (against, "as asked") if against else baseline(npm.ROOT)
    if base is None:
        print(f"no breaking change can be told: {why}")
        failed += ci and why == SHALLOW
    else:
        print(f"comparing the API with {base[:12]}, {why}")
        failed += run(buf, "breaking", "--against", f"{git_folder(npm.ROOT)}#ref={base}")
    print("the API is fine" if not failed else "the API has faults, see above")
    return 1 if failed else 0


def run(buf: Path, *arguments: str) -> int:
    """Run one check and give 1 when it failed."""
    return 1 if subprocess.run([buf, *arguments], cwd=npm.ROOT, check=False).returncode else 0


def baseline(root: Path) -> tuple[str | None, str]:
    """Choose the commit to compare with, and say why; None where there is nothing to compare with."""
    if not git(root, "rev-parse", "--verify", "-q", "HEAD"):
        return None, "there is no commit yet"
    base, why = git(root, "describe", "--tags", "--abbrev=0"), "the newest tag"
    if not base and git(root, "rev-parse", "--is-shallow-repository") == "true":
        return None, SHALLOW
    if not base and git(root, "status", "--porcelain", "--", PROTOS):
        base, why = git(root, "rev-parse", "HEAD"), "the last commit"
    if not base:
        last = git(root, "log", "-1", "--format=%H", "HEAD", "--", PROTOS)
        base, why = git(root, "rev-parse", "--verify", "-q", f"{last}^"), "before its last change"
    if not base or not git(root, "ls-tree", "-r", "--name-only", base, "--", "proto", "buf.yaml"):
        return None, "this is its first version"
    grep = ("-E", "--grep=^API-Break: ")
    declared = git(root, "log", "-1", "--format=%H", *grep, f"{base}..HEAD", "--", PROTOS)
    return (declared, "which declares a break") if declared else (base, why)


def git_folder(root: Path) -> str:
    """Give the repository's folder, also from a worktree."""
    return git(root, "rev-parse", "--path-format=absolute", "--git-common-dir")


def git(root: Path, *arguments: str) -> str:
    """Ask git; nothing where it fails."""
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
