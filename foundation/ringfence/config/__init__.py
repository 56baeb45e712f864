"""Configuration: TOML into one frozen value a component, where anything unknown is an error with its line."""

from __future__ import annotations

from ringfence.config.document import convert, tables
from ringfence.config.errors import ConfigError
from ringfence.config.files import read_bounded
from ringfence.config.loader import Component, effective, load, parse
from ringfence.config.values import KeyId, PcrIndex, Sha256, SocketPath, resolved

__all__ = [
    "Component",
    "ConfigError",
    "KeyId",
    "PcrIndex",
    "Sha256",
    "SocketPath",
    "convert",
    "effective",
    "load",
    "parse",
    "read_bounded",
    "resolved",
    "tables",
]
