"""The built-in GPU adapters, by the name that a configuration gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ringfence.agent.gpu import cpu
from ringfence.agent.gpu.port import GpuDevice

BUILT_IN: Mapping[str, Callable[[], Callable[[int], GpuDevice]]] = MappingProxyType({"cpu": cpu.prepare})
"""Each does what is done once a process, and gives what opens a device with a pool of that many bytes, for one job."""
