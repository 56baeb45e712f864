"""What a host needs for Ringfence's work, found out check by check, each with its meaning and its remedy."""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from ringfence.agent.confine.protections import PROTECTIONS, Need
from ringfence.agent.sandbox.lockdown import HostFeatures

CHILD_DEADLINE_S = 20.0
DISK_WRITES = 20
# A write that reaches no disk returns this fast: memory, or a disk that lies.
_NO_DISK_US = 3.0

_COUNT_DEVICES = """
from hip import hip
error, count = hip.hipGetDeviceCount()
print(int(error), count)
"""


class Status(enum.Enum):
    """`lacking`: it is not there. `broken`: it is there and does not work."""

    OK = "ok"
    LACKING = "lacking"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, what that means for the work, and, unless all is well, how to mend it."""

    area: str
    name: str
    status: Status
    required: bool
    found: str
    meaning: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Library:
    """A library by its module and its distribution; `extra` brings it, or "" where every installation has it."""

    module: str
    distribution: str
    extra: str
    required: bool
    meaning: str


LIBRARIES = (
    Library("cryptography", "cryptography", "", True, "keys, signatures and encryption"),
    Library("msgspec", "msgspec", "", True, "typed configuration and wire values"),
    Library("jwt", "pyjwt", "", True, "attestation results"),
    Library("wasmtime", "wasmtime", "agent", True, "runs guests"),
    Library("grpc", "grpcio", "agent", True, "the agent's API"),
    Library("google.protobuf", "protobuf", "agent", True, "the agent's API"),
    Library("cedarpy", "cedarpy", "gateway", True, "decides policies"),
    Library("z3", "z3-solver", "policy-tools", False, "compares policy bundles: `ringfence policy diff` and `check`"),
    Library("sklearn", "scikit-learn", "risk", False, "grows forests from decisions: `ringfence risk train`"),
    Library("fido2", "fido2", "gateway", True, "verifies security keys"),
    Library("hpack", "hpack", "gateway", True, "speaks HTTP/2 with Envoy"),
    Library("httptools", "httptools", "gateway", True, "speaks HTTP with nginx and Caddy"),
    Library("httpx", "httpx", "gateway", True, "asks identity providers and directories"),
    Library("uvicorn", "uvicorn", "gateway", True, "serves the gateway"),
    Library("uvloop", "uvloop", "gateway", False, "serves the gateway faster"),
    Library("numpy", "numpy", "quantum", True, "quantum states, and the demo's own check of its result"),
    Library("ziglang", "ziglang", "demo", True, "compiles the demo's guest from C"),
    Library("tpm2_pytss", "tpm2-pytss", "tpm", False, "attests this host by its TPM"),
    Library("hip", "hip-python", "amd", False, "AMD GPUs; without it kernels run on the CPU device"),
)


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether everything that the main job needs is there and works."""
    return all(finding.status is Status.OK for finding in findings if finding.required)


def interpreter(version: tuple[int, int, int]) -> Finding:
    """Python itself, by `sys.version_info[:3]`."""
    found = ".".join(str(part) for part in version)
    meaning = "runs every part of Ringfence"
    if version >= (3, 11, 0):
        return Finding("python", "interpreter", Status.OK, True, found, meaning)
    return Finding("python", "interpreter", Status.LACKING, True, found, meaning, "Install Python 3.11 or later.")


def library(wanted: Library) -> Finding:
    """Whether `wanted` can be imported, and in which version."""
    package = f"'.[{wanted.extra}]'" if wanted.extra else "."
    try:
        version = importlib.metadata.version(wanted.distribution)
    except importlib.metadata.PackageNotFoundError:
        mend = f"In the folder of the clone, run: pip install {package}"
        return Finding(
            "libraries", wanted.distribution, Status.LACKING, wanted.required, "not installed", wanted.meaning, mend
        )
    try:
        importlib.import_module(wanted.module)
    except (ImportError, OSError) as error:
        found = f"{version}, which does not load: {error}"
        mend = (
            f"In the folder of the clone, run: pip install --force-reinstall {package}; and install the system "
            "libraries that it names."
        )
        return Finding("libraries", wanted.distribution, Status.BROKEN, wanted.required, found, wanted.meaning, mend)
    return Finding("libraries", wanted.distribution, Status.OK, wanted.required, version, wanted.meaning)


def post_quantum() -> Finding:
    """Whether this build of `cryptography` really makes, signs and agrees with post-quantum keys."""
    meaning = "every session and signature rests on them"
    mend = "pip install --upgrade 'cryptography>=50.0.2' (the wheel, which brings its own OpenSSL)"
    try:
        from cryptography.exceptions import UnsupportedAlgorithm

        from ringfence.crypto import COMPOSITE, CryptoError, kem
    except ImportError as error:
        return Finding("libraries", "post-quantum", Status.BROKEN, True, f"not in this build: {error}", meaning, mend)
    try:
        public, private = COMPOSITE.generate()
        COMPOSITE.verify(public, b"doctor", COMPOSITE.sign(private, b"doctor"))
        exchange = kem("ML-KEM-768")
        public, private = exchange.generate()
        ciphertext, secret = exchange.encapsulate(public)
        agreed = exchange.decapsulate(private, ciphertext) == secret
    except (CryptoError, UnsupportedAlgorithm) as error:
        return Finding("libraries", "post-quantum", Status.BROKEN, True, f"they fail: {error}", meaning, mend)
    if not agreed:
        found = "the two sides of ML-KEM-768 disagree"
        return Finding("libraries", "post-quantum", Status.BROKEN, True, found, meaning, mend)
    return Finding("libraries", "post-quantum", Status.OK, True, "ML-KEM-768 and ML-DSA-65 work", meaning)


def protections(present: Set[str], features: HostFeatures) -> Iterator[Finding]:
    """The sandbox's protections, by the names of those that this host has."""
    for protection in PROTECTIONS:
        there = protection.name in present
        status, found = (Status.OK, "available") if there else (Status.LACKING, "not available")
        if protection.name == "namespaces" and not there and features.userns:
            status, found = Status.BROKEN, "the kernel allows them, but making them fails"
        meaning = protection.meaning
        if protection.need is Need.STRICT:
            meaning += (
                "; a job at level high or quantum is refused without it, unless [sandbox] accept_missing names it"
            )
        yield Finding(
            "sandbox",
            protection.name,
            status,
            protection.need is Need.ALWAYS,
            found,
            meaning,
            "" if there else protection.mend,
        )


def secret_memory(features: HostFeatures) -> Finding:
    """Memory that the kernel itself does not map (memfd_secret(2))."""
    meaning = "hides keys in memory from the kernel's own mappings"
    if features.memfd_secret:
        return Finding("kernel", "memfd_secret", Status.OK, False, "available", meaning)
    mend = "Boot with secretmem.enable=1 (Linux 5.14 or later)."
    return Finding("kernel", "memfd_secret", Status.LACKING, False, "not available", meaning, mend)


def locked_memory(soft_limit: int) -> Finding:
    """RLIMIT_MEMLOCK, in bytes."""
    meaning = "keeps keys out of swap"
    unlimited = soft_limit == resource.RLIM_INFINITY
    found = "unlimited" if unlimited else f"{soft_limit // 1024} KiB"
    if unlimited or soft_limit >= 64 * 1024:
        return Finding("permissions", "locked memory", Status.OK, False, found, meaning)
    mend = "Raise it: ulimit -l 65536, or LimitMEMLOCK=64M in the unit."
    return Finding("permissions", "locked memory", Status.LACKING, False, found, meaning, mend)


def tpm(dev: Path) -> Finding:
    """The TPM's device nodes under `dev`."""
    meaning = "attests what this host booted; without it a host is not attested, and the shipped policies refuse it"
    nodes = [node for node in (dev / "tpmrm0", dev / "tpm0") if node.exists()]
    if not nodes:
        mend = "Turn the TPM on in the firmware, or give the virtual machine one."
        return Finding("tpm", "device", Status.LACKING, False, "no device node", meaning, mend)
    if not os.access(nodes[0], os.R_OK | os.W_OK):
        mend = f"Join the group of {nodes[0]}: usermod -aG tss USER, and log in again."
        return Finding("tpm", "device", Status.BROKEN, False, f"{nodes[0]}, not permitted", meaning, mend)
    return Finding("tpm", "device", Status.OK, False, str(nodes[0]), meaning)


def software_tpm(path: str | None) -> Finding:
    """The TPM emulator `swtpm`, looked for on `path` (None for the environment's own)."""
    meaning = "stands in for a TPM in the demo and the tests"
    program = shutil.which("swtpm", path=path)
    if program is None:
        return Finding("tpm", "swtpm", Status.LACKING, False, "not on PATH", meaning, "apt install swtpm")
    return Finding("tpm", "swtpm", Status.OK, False, program, meaning)


def gpu(dev: Path, sys_: Path) -> Iterator[Finding]:
    """AMD GPUs by the driver's nodes under `dev` and its topology under `sys_`."""
    meaning = "runs HIP kernels on a GPU; without one they run on the CPU device"
    kfd = dev / "kfd"
    if not kfd.exists():
        mend = "On a host with an AMD GPU load amdgpu; in a container pass /dev/kfd and /dev/dri."
        yield Finding("gpu", "driver", Status.LACKING, False, f"no {kfd}", meaning, mend)
        return
    if os.access(kfd, os.R_OK | os.W_OK):
        yield Finding("gpu", "driver", Status.OK, False, str(kfd), meaning)
    else:
        mend = "Join the render group: usermod -aG render,video USER, and log in again."
        yield Finding("gpu", "driver", Status.BROKEN, False, f"{kfd}, not permitted", meaning, mend)
    gpus = list(_gpu_nodes(sys_ / "class/kfd/kfd/topology/nodes"))
    if not gpus:
        mend = "See `dmesg` for amdgpu: the driver is loaded and drives no GPU."
        yield Finding("gpu", "devices", Status.LACKING, False, "none in the driver's topology", meaning, mend)
        return
    yield Finding("gpu", "devices", Status.OK, False, ", ".join(gpus), meaning)
    counted = _child(_COUNT_DEVICES)
    if counted is not None and counted.returncode == 0 and counted.stdout.split()[:1] == ["0"]:
        found = f"{counted.stdout.split()[1]} devices"
        yield Finding("gpu", "hip", Status.OK, False, found, meaning)
        return
    said = "no answer" if counted is None else (counted.stderr or counted.stdout).strip().split("\n")[-1]
    mend = (
        "In the folder of the clone, run: pip install '.[amd]'; and install ROCm's libamdhip64.so (ROCM_PATH names its "
        "folder)."
    )
    yield Finding("gpu", "hip", Status.BROKEN, False, said, meaning, mend)


def disk(folder: Path) -> Finding:
    """Whether fdatasync works in `folder`, and what it costs: the median of 20 writes of 4 KiB."""
    meaning = "no answer leaves before its audit record is on the disk, so every answer waits this long"
    waits_us: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(DISK_WRITES):
                file.write(bytes(4096))
                file.flush()
                begun = time.perf_counter_ns()
                os.fdatasync(file.fileno())
                waits_us.append((time.perf_counter_ns() - begun) / 1000)
    except OSError as error:
        mend = "Give --state a folder on a local disk that this account may write."
        return Finding("disk", "fdatasync", Status.BROKEN, True, f"{folder}: {error.strerror}", meaning, mend)
    median = statistics.median(waits_us)
    found = f"{median / 1000:.3f} ms (worst {max(waits_us) / 1000:.3f} ms) in {folder}"
    if median < _NO_DISK_US:
        found += "; this is memory, and a crash would lose it"
    return Finding("disk", "fdatasync", Status.OK, True, found, meaning)


def _gpu_nodes(nodes: Path) -> Iterator[str]:
    """The name of each GPU in the topology: a node with SIMD units; a CPU's node has none."""
    for node in sorted(nodes.glob("*/properties")):
        words = node.read_text(encoding="ascii", errors="replace").split()
        properties = dict(zip(words[::2], words[1::2], strict=False))
        if properties.get("simd_count", "0") != "0":
            version = int(properties.get("gfx_target_version", "0"))
            yield f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _child(code: str) -> subprocess.CompletedProcess[str] | None:
    """Run `code` in an interpreter of its own: a driver that hangs or crashes takes only that one with it."""
    try:
        return subprocess.run(  # noqa: S603 - this interpreter, and code that stands in this file
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=CHILD_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
