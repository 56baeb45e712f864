"""The `ringfence` command's entry point, which an interrupt ends quietly however early it comes."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit status; see `ringfence.frame`."""
    try:
        from ringfence.frame import outcome  # here, because loading takes most of the time of a short command

        return outcome(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
