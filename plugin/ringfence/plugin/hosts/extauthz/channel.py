"""A client's certificate as Envoy gives it: PEM, URL-encoded (`include_peer_certificate`). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import OrderedDict
from typing import Final
from urllib.parse import unquote_to_bytes

from ringfence.plugin.hosts.extauthz.errors import CHANNEL_MALFORMED, ExtAuthzError
from ringfence.plugin.hosts.port import NO_CHANNEL, Channel

MAX_BYTES: Final = 64 * 1024
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")


def read_channel(encoded: bytes) -> Channel:
    """The channel of a URL-encoded PEM chain, the leaf first. Raises `extauthz.channel_malformed`."""
    if not encoded:
        return NO_CHANNEL
    pem = unquote_to_bytes(encoded) if len(encoded) <= MAX_BYTES else b""
    leaf = _BLOCK.match(pem)
    try:
        if leaf is None:
            raise ValueError  # noqa: TRY301 - what is no PEM and what is no base64 are one failure
        der = base64.b64decode(b"".join(leaf[1].split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ExtAuthzError(
            CHANNEL_MALFORMED,
            "The certificate that Envoy passed on is no PEM.",
            field="attributes.source.certificate",
            hint="Leave the certificate to Envoy (include_peer_certificate); nothing else may set it.",
        ) from error
    return Channel(hashlib.sha256(der).hexdigest(), pem)


class Channels:
    """The channels that were read lately, at most `limit`: one certificate comes with every request of its client."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[bytes, Channel] = OrderedDict()

    def read(self, encoded: bytes) -> Channel:
        """As `read_channel`; what is malformed is never remembered."""
        known = self._known.get(encoded)
        if known is not None:
            self._known.move_to_end(encoded)
            return known
        channel = read_channel(encoded)
        self._known[encoded] = channel
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
        return channel
