"""Prove `make demo` and `make test` where a newcomer stands: in a fresh Debian 12 with Python, pip, make and git.

A Debian root is built once with mmdebstrap (build/bare-debian/) and unpacked anew for each run. HEAD goes into a folder
with a space in its name. There `make demo` runs as an ordinary user and once more without a network, then `make test`
the same way as root. It works as root, and as a user who has subordinate ids. The host's proxy, certificates and
package mirror are carried over, so that it works behind them too.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
# `mount` is on every real Debian; the smallest root lacks it.
PACKAGES = "mount,python3,python3-pip,make,git,ca-certificates"
CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / "build" / "bare-debian"
USER_ID = "1000"
CERTIFICATES = "/etc/ssl/host-certificates.pem"
CARRIED = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "UV_DEFAULT_INDEX")
PIP_SETTINGS = ("index-url", "extra-index-url", "proxy", "timeout", "trusted-host")
APT_SETTINGS = ("proxy", "check-valid-until", "check-date", "verify-peer", "verify-host")
# pivot_root rather than chroot: in a chroot the kernel refuses user namespaces, which a real machine grants.
ENTER = """
set -eu
root=$1 network=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
if [ "$network" = off ]; then ip link set lo up; fi
mkdir -p .host
pivot_root . .host
exec chroot . sh -c 'umount -l /.host && rmdir /.host && exec "$@"' sh "$@"
"""


class ProofError(Exception):
    """The proof failed or could not be tried."""


def say(message: str) -> None:
    print(f"bare-debian: {message}", file=sys.stderr, flush=True)


def execute(command: Sequence[str], what: str) -> None:
    """Run a command with its output shown; raise with what it was for when it fails."""
    outcome = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if outcome.returncode != 0:
        raise ProofError(f"{what} failed with status {outcome.returncode}; its output stands above.")


def as_root(command: Sequence[str]) -> list[str]:
    """The command as root, which for an ordinary user is root over their subordinate ids."""
    return list(command) if os.geteuid() == 0 else ["unshare", "--map-root-user", "--map-auto", *command]


def output_of(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def apt_options() -> list[str]:
    """The host's proxy and validity settings of apt, for mmdebstrap and for apt within the root."""
    dump = output_of(["apt-config", "dump", "Acquire"]) if shutil.which("apt-config") else ""
    wanted = [line for line in dump.splitlines() if line.partition(" ")[0].lower().rpartition("::")[2] in APT_SETTINGS]
    return [f"--aptopt={line.rstrip(';')}" for line in wanted]


def apt_sources() -> list[str]:
    """The files that name the host's own Debian mirror, where the host is of the same suite."""
    if f"VERSION_CODENAME={SUITE}" not in Path("/etc/os-release").read_text(encoding="utf-8"):
        return []
    candidates = [Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")]
    return [str(path) for path in candidates if path.is_file() and SUITE in path.read_text(encoding="utf-8")]


def pip_settings() -> dict[str, str]:
    """What pip is configured with here, by name, from its files and the environment."""
    settings = {}
    for line in output_of([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    return settings


def carried_environment(root: Path) -> list[str]:
    """The variables that let pip and uv reach the network as here, less what names a file of the host."""
    settings = pip_settings()
    carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
    for name in PIP_SETTINGS:
        value = settings.get(name, "")
        if value and "file:" not in value:
            carried["PIP_" + name.upper().replace("-", "_")] = value
    bundle = os.environ.get("SSL_CERT_FILE") or settings.get("cert", "")
    if bundle:
        execute(as_root(["cp", "--dereference", bundle, f"{root}{CERTIFICATES}"]), "copying the host's certificates")
        carried |= {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES}
    return [f"{name}={value}" for name, value in carried.items()]


def build_image() -> Path:
    image = FOLDER / f"{SUITE}.tar"
    if image.is_file():
        return image
    FOLDER.mkdir(parents=True, exist_ok=True)
    say(f"building a Debian {SUITE} root: about a minute, once (remove {image} to build it again)")
    unfinished = image.with_suffix(".unfinished.tar")
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={PACKAGES}", *apt_options()]
    execute([*command, SUITE, str(unfinished), *apt_sources()], "mmdebstrap")
    return unfinished.rename(image)


class Machine:
    """One unpacked Debian root and the ways to run something in it."""

    def __init__(self, image: Path) -> None:
        self.root = FOLDER / "root"
        self.remove()
        self.root.mkdir(parents=True)
        unpack = ["tar", "--extract", "--numeric-owner", "--exclude=./dev/*", "--file", str(image)]
        execute(as_root([*unpack, "--directory", str(self.root)]), "unpacking the Debian root")
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            execute(as_root(["cp", "--dereference", name, f"{self.root}{name}"]), f"copying {name}")
        self.environment = carried_environment(self.root)

    def remove(self) -> None:
        execute(as_root(["rm", "-rf", "--one-file-system", str(self.root)]), "removing the Debian root")

    def enter(self, command: Sequence[str], what: str, *, network: bool = True) -> None:
        spaces = ["--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        user = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
        state = "on" if network else "off"
        execute(["unshare", *user, *spaces, "sh", "-c", ENTER, "sh", str(self.root), state, *command], what)

    def unpack_head(self, folder: str) -> None:
        """Put a clean copy of HEAD into `folder` of the machine, owned by who owns the folder above."""
        archive = FOLDER / "head.tar"
        git = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT)]
        execute([*git, "archive", f"--output={archive}", "HEAD"], "git archive")
        if output_of([*git, "status", "--porcelain"]):
            say("what is not committed here is not part of the proof")
        target = f"{self.root}{folder}"
        execute(as_root(["mkdir", target]), "making the folder of the checkout")
        execute(as_root(["tar", "--extract", "--file", str(archive), "--directory", target]), "unpacking HEAD")
        self.enter(["sh", "-c", 'chown -R --reference="$0/.." "$0"', folder], "giving HEAD to its user")

    def make(self, target: str, home: str, prefix: Sequence[str], path: str) -> None:
        """Run a make target in the checkout below `home`, with a network and then without, and print both times."""
        variables = [f"HOME={home}", f"PATH={path}", "LANG=C.UTF-8", *self.environment]
        script = f'cd "$HOME/ring fence" && exec make {target}'
        for network in (True, False):
            what = f"make {target} {'with a network' if network else 'once more, without a network'}"
            say(what)
            began = time.monotonic()
            self.enter([*prefix, "env", "-i", *variables, "sh", "-c", script], what, network=network)
            say(f"{what}: passed in {time.monotonic() - began:.1f} s")


def prove(targets: Sequence[str]) -> None:
    missing = [name for name in ("mmdebstrap", "unshare", "pivot_root", "ip", "git") if shutil.which(name) is None]
    if missing:
        raise ProofError(
            f"this needs {', '.join(missing)}. On Debian: apt-get install mmdebstrap util-linux iproute2 git"
        )
    machine = Machine(build_image())
    if "demo" in targets:
        machine.enter(["useradd", "--create-home", "--uid", USER_ID, "newcomer"], "making an ordinary user")
        machine.unpack_head("/home/newcomer/ring fence")
        user = ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups"]
        machine.make("demo", "/home/newcomer", user, "/usr/local/bin:/usr/bin:/bin")
    if "test" in targets:
        machine.unpack_head("/root/ring fence")
        machine.make("test", "/root", [], "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    machine.remove()


def main() -> int:
    parser = argparse.ArgumentParser(description="Prove make demo and make test in a fresh Debian 12.")
    parser.add_argument("--only", choices=["demo", "test"], help="prove this one alone")
    arguments = parser.parse_args()
    try:
        prove([arguments.only] if arguments.only else ["demo", "test"])
    except ProofError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
