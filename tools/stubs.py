"""Generate from proto/, with grpcio-tools, the Python stubs of the API and the descriptors that Envoy reads JSON by.

python -m tools.stubs           write the stubs beside the .proto files, the descriptors beside Envoy's configuration
python -m tools.stubs --check   change nothing; exit 1 and list what differs

It uses the interpreter that has grpcio-tools in the version that pyproject.toml pins (.venv's, or the one that
runs it); where there is none, it makes one under .cache/stubs.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GOOGLE = ROOT / "third_party" / "googleapis"
DESCRIPTORS = ROOT / "deploy" / "envoy" / "limner.binpb"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def main() -> int:
    """Write what is generated, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when the stubs are stale"
    )
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
    written = [*stubs_in(PROTO), *(path for path in [DESCRIPTORS] if path.exists())]
    current = {path.relative_to(ROOT): path.read_bytes() for path in written}
    stale = sorted(name for name in fresh.keys() | current.keys() if fresh.get(name) != current.get(name))
    for name in stale:
        fault = "unwanted" if name not in fresh else "stale" if name in current else "missing"
        print(f"{name}: {fault}")
        if not check and name in fresh:
            (ROOT / name).write_bytes(fresh[name])
        elif not check:
            (ROOT / name).unlink()
    if check and stale:
        print("run python -m tools.stubs and commit what it writes")
        return 1
    print(f"{len(fresh)} files, {len(stale)} {'rewritten' if stale else 'out of date'}")
    return 0


def generate(folder: Path) -> dict[Path, bytes]:
    """Generate all in `folder`, and return it by path in the repository.

    Stubs of services only for files that have a service. The descriptors are those of limner.v1, of what it imports
    and of what its errors carry, which is nowhere imported.
    """
    sources = sorted(path.relative_to(PROTO) for path in PROTO.glob("limner/**/*.proto"))
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    protoc = [interpreter(), "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{GOOGLE}"]
    subprocess.run([*protoc, *outputs, *map(str, sources)], check=True)
    served = [str(source) for source in sources if source.is_relative_to("limner/v1")]
    descriptors = folder / DESCRIPTORS.name
    subprocess.run(
        [
            *protoc,
            f"--descriptor_set_out={descriptors}",
            "--include_imports",
            *served,
            "google/rpc/error_details.proto",
        ],
        check=True,
    )
    serviceless = {
        source.with_name(f"{source.stem}_pb2_grpc.py")
        for source in sources
        if not re.search(r"^service\s", (PROTO / source).read_text(), re.MULTILINE)
    }
    names = {path: path.relative_to(folder) for path in stubs_in(folder)}
    stubs = {
        (PROTO / name).relative_to(ROOT): path.read_bytes()
        for path, name in names.items()
        if name not in serviceless
    }
    return stubs | {DESCRIPTORS.relative_to(ROOT): descriptors.read_bytes()}


def stubs_in(folder: Path) -> list[Path]:
    """List the generated files."""
    return [path for path in folder.glob("limner/**/*") if path.name.endswith(SUFFIXES)]


def interpreter() -> str:
    """Find a Python with the pinned grpcio-tools, or make one."""
    pin = re.search(r'"(grpcio-tools==([\d.]+))"', (ROOT / "pyproject.toml").read_text())
    if pin is None:
        raise SystemExit("pyproject.toml pins no grpcio-tools")
    own = ROOT / ".cache" / "stubs" / "bin" / "python"
    for python in (ROOT / ".venv" / "bin" / "python", Path(sys.executable), own):
        if version(python) == pin[2]:
            return str(python)
    print(f"installing {pin[1]} in .cache/stubs", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", own.parent.parent], check=True)
    subprocess.run([own, "-m", "pip", "install", "-q", pin[1]], check=True)
    return str(own)


def version(python: Path) -> str:
    """Tell which grpcio-tools an interpreter has; empty for none."""
    if not python.exists():
        return ""
    ask = "from importlib.metadata import version; import grpc_tools; print(version('grpcio-tools'))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
