"""The parties of the handshake's tests."""

from __future__ import annotations

import pytest

from ringfence.crypto import COMPOSITE
from ringfence.trust import KeyPair


@pytest.fixture(scope="session")
def alice() -> KeyPair:
    """An initiator."""
    return KeyPair(*COMPOSITE.generate())


@pytest.fixture(scope="session")
def bob() -> KeyPair:
    """The responder that Alice means."""
    return KeyPair(*COMPOSITE.generate())


@pytest.fixture(scope="session")
def mallory() -> KeyPair:
    """Somebody with a key of her own, between the two."""
    return KeyPair(*COMPOSITE.generate())
