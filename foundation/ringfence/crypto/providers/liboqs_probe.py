"""Finds an installed liboqs and loads liboqs-python over it, without ever letting that install anything.

Imported by itself, liboqs-python (`import oqs`) counts down, clones, builds and ends the process where it finds no
library, and prints a line where it does. So the library is found, loaded and asked for its version first, in the order
in which liboqs-python looks; only then is the module imported, silenced, and with a setting that makes its installer
raise at once.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib
import importlib.metadata
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# Another minor version has other struct layouts, and liboqs-python would read beyond them.
SUPPORTED: Final = "0.16."
_BINDING: Final = "liboqs-python"
_INSTALL_PATH: Final = "OQS_INSTALL_PATH"
_INSTALLER: Final = "PYOQS_VERSION"


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found: the module `oqs`, or why there is none, as a clause."""

    module: Any
    absence: str


@functools.cache
def installed() -> Probe:
    """The liboqs of this host; looked for once a process."""
    return probe(os.environ, ctypes.util.find_library)


def probe(
    environment: Mapping[str, str],
    find: Callable[[str], str | None],
    version: Callable[[str], str] = importlib.metadata.version,
) -> Probe:
    """Looks for liboqs as liboqs-python would; `find` is `ctypes.util.find_library`."""
    try:
        binding = version(_BINDING)
    except importlib.metadata.PackageNotFoundError:
        return _absent(f"{_BINDING} is not installed (pip install 'ringfence[oqs]')")
    if not binding.startswith(SUPPORTED):
        return _absent(f"{_BINDING} {binding} is not one of {SUPPORTED}x")
    candidates = _candidates(environment, find)
    if not candidates:
        return _absent(f"no liboqs is installed, neither for the linker nor under {_INSTALL_PATH}")
    broken = ""
    for path in candidates:
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            broken = f"{path} cannot be loaded: {error}"
            continue
        return _over(library, path)
    return _absent(broken)


def _candidates(environment: Mapping[str, str], find: Callable[[str], str | None]) -> list[str]:
    found = [name for name in (find("liboqs"), find("oqs")) if name]
    root = environment.get(_INSTALL_PATH)
    if root:
        paths = (os.path.join(os.path.abspath(root), folder, "liboqs.so") for folder in ("lib", "lib64"))
        found += [path for path in paths if os.path.isfile(path)]
    return found


def _over(library: ctypes.CDLL, path: str) -> Probe:
    try:
        ask = library.OQS_version
    except AttributeError:
        return _absent(f"{path} is not liboqs")
    ask.restype = ctypes.c_char_p
    version = (ask() or b"").decode("ascii", "replace")
    if not version.startswith(SUPPORTED):
        return _absent(f"{path} is liboqs {version}, and {_BINDING} here needs {SUPPORTED}x")
    try:
        module = _import()
        loaded = module.oqs_version()
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError, SystemExit) as error:
        return _absent(f"{_BINDING} does not load over {path}: {error or type(error).__name__}")
    if loaded != version:
        return _absent(f"{_BINDING} loaded liboqs {loaded}, not {path}")
    return Probe(module, "")


def _import() -> Any:
    logging.getLogger("oqs.oqs").addFilter(lambda _: False)
    before = os.environ.get(_INSTALLER)
    os.environ[_INSTALLER] = "disabled"
    try:
        return importlib.import_module("oqs")
    finally:
        if before is None:
            del os.environ[_INSTALLER]
        else:
            os.environ[_INSTALLER] = before


def _absent(why: str) -> Probe:
    return Probe(None, why)
