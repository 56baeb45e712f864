"""The built-in GPU adapters, by the name that a configuration gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ringfence.agent.gpu.cpu import CpuDevice
from ringfence.agent.gpu.port import GpuDevice

BUILT_IN: Mapping[str, Callable[[int], GpuDevice]] = MappingProxyType({"cpu": CpuDevice})
"""Each opens a device with a pool of that many bytes, for one job."""
