"""Generate the protobuf and gRPC code, with its type stubs, from every .proto file beside our own modules.

The code of `agent/ringfence/agent/api/agent.proto` goes to the package `_pb` beside it. The compiler is told that the
file lies in `_pb` too, because it derives the imports of the generated code from that place.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOTS = ("foundation", "attestation", "policies", "agent", "plugin")
INIT = '"""Generated from the .proto files of the folder above by `make generate`; do not edit."""\n'


def definitions(tree: Path) -> list[Path]:
    """Every .proto file of the tree, relative to it."""
    found = (path for root in ROOTS for path in (tree / root / "ringfence").rglob("*.proto"))
    return sorted(path.relative_to(tree) for path in found)


def generate(tree: Path, definition: Path, output: Path | None) -> Path:
    """Write the code of one definition under `output`, or in its own root; returns the `_pb` folder."""
    root, *package = definition.parent.parts
    target = Path(*package, "_pb")
    destination = (output or tree / root).resolve()
    folder = destination / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(INIT, encoding="utf-8")
    plugins = [
        f"--plugin={name}={Path(sys.prefix, 'bin', name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    outputs = [f"--{kind}_out={destination}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    mapped = f"--proto_path={target}={definition.parent}"
    command = [sys.executable, "-m", "grpc_tools.protoc", *plugins, mapped, *outputs, str(target / definition.name)]
    subprocess.run(command, cwd=tree, check=True, stdin=subprocess.DEVNULL)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the protobuf and gRPC code.")
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--tree", type=Path, default=here, help="the checkout to read")
    parser.add_argument("--output", type=Path, help="write under this folder and leave the checkout as it is")
    arguments = parser.parse_args()
    for definition in definitions(arguments.tree):
        try:
            folder = generate(arguments.tree, definition, arguments.output)
        except subprocess.CalledProcessError as error:
            print(f"generate: {definition} was not compiled (status {error.returncode}); see above.", file=sys.stderr)
            return 1
        print(f"generate: {definition} -> {folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
