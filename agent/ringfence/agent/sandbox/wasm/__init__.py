"""A decoder of WebAssembly 3.0 binaries that knows where everything stands; it decodes, and validates no more.

Sans-IO and total: any bytes give a module or a `MalformedModule` with an offset. Source: WebAssembly Core
Specification 3.0, chapter 5 (binary format).
"""

from ringfence.agent.sandbox.wasm.flow import Flow, read_flow
from ringfence.agent.sandbox.wasm.instructions import Instruction, instructions
from ringfence.agent.sandbox.wasm.reading import MalformedModule, OversizedModule
from ringfence.agent.sandbox.wasm.sections import decode_module
from ringfence.agent.sandbox.wasm.values import (
    BOUNDS,
    PAGE,
    Body,
    Constant,
    Data,
    Elements,
    Export,
    FunctionType,
    GlobalType,
    Imported,
    Kind,
    MemoryType,
    TableType,
    WasmModule,
)

__all__ = [
    "BOUNDS",
    "PAGE",
    "Body",
    "Constant",
    "Data",
    "Elements",
    "Export",
    "Flow",
    "FunctionType",
    "GlobalType",
    "Imported",
    "Instruction",
    "Kind",
    "MalformedModule",
    "MemoryType",
    "OversizedModule",
    "TableType",
    "WasmModule",
    "decode_module",
    "instructions",
    "read_flow",
]
