"""The numbers of WASI preview 1 that more than one of its modules here needs: errors and rights.

Source: WebAssembly/WASI, phases/snapshot/docs.md (wasi_snapshot_preview1), errno and rights.
"""

from __future__ import annotations

from typing import Final

SUCCESS: Final = 0
BADF: Final = 8
INVAL: Final = 28
NOTDIR: Final = 54
NOTSOCK: Final = 57
NOTSUP: Final = 58
SPIPE: Final = 70
NOTCAPABLE: Final = 76

RIGHT_READ: Final = 1 << 1
RIGHT_SET_FLAGS: Final = 1 << 3
RIGHT_WRITE: Final = 1 << 6
RIGHT_FILESTAT: Final = 1 << 21
RIGHT_POLL: Final = 1 << 27
