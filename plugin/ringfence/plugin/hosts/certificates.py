"""A client's certificate as hosts write it. Pure. The host has proven its key; nothing here verifies its chain."""

from __future__ import annotations

import binascii
import re
import urllib.parse

from ringfence.crypto import digest
from ringfence.plugin.hosts.errors import FIELDS_MALFORMED, HostError
from ringfence.plugin.hosts.port import NO_CHANNEL, Channel

_PEM = re.compile(r"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,32768})-----END CERTIFICATE-----")


def read_certificate(text: str) -> Channel:
    """The channel of a client's certificate as a host writes it; none for "". Raises `hosts.fields_malformed`."""
    if not text:
        return NO_CHANNEL
    plain = urllib.parse.unquote(text) if "%" in text else text
    block = _PEM.match(plain)
    try:
        der = binascii.a2b_base64("".join((block[1] if block else plain).split()), strict_mode=True)
    except (ValueError, UnicodeError):
        raise HostError(FIELDS_MALFORMED, "The client's certificate is neither PEM nor base64.") from None
    return Channel(digest(der).hex(), plain.encode() if block else der)


def channel_of(der: bytes) -> Channel:
    """The channel of a certificate in DER; none for no bytes."""
    return Channel(digest(der).hex(), der) if der else NO_CHANNEL
