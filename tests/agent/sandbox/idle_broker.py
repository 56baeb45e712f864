"""A device broker without devices: waits for its ring to end and reports that nothing was used."""

from __future__ import annotations

import os
import sys

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
while os.read(int(arguments["--fd"]), 65536):
    pass
names = ("commands", "launches", "gates", "measurements", "checkpoints", "peak_gpu_bytes")
os.write(int(arguments["--report-fd"]), ("{" + ",".join(f'"{name}":0' for name in names) + "}").encode())
