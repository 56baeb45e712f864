"""Which keys people mean by the name of a principal."""

from __future__ import annotations

import pytest

from ringfence.crypto import COMPOSITE
from ringfence.plugin.errors import GateError
from ringfence.plugin.identifying import identification
from ringfence.plugin.identity.settings import IdentitySettings
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.familiarity import Familiarity
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
OLD, NEW, OTHER, AGENT = (KeyPair(*COMPOSITE.generate()) for _ in range(4))
TRUST = TrustList(
    (
        Pin("alice", Role.CLIENT, OLD.public, NOW - 9, ("clients",), NOW + 9),
        Pin("alice", Role.CLIENT, NEW.public, NOW - 1, ("clients",)),
        Pin("bob", Role.CLIENT, OTHER.public, NOW - 9, ("clients",)),
        Pin("agent", Role.AGENT, AGENT.public, NOW - 9),
    )
)
KNOWN = identification(IdentitySettings(), trust=lambda: TRUST, behaviour=Familiarity(Assessor(RiskSettings())))


def test_a_name_means_every_key_that_it_has_now() -> None:
    assert KNOWN.keys("alice", NOW) == (OLD.key_id, NEW.key_id)
    assert KNOWN.keys("alice", NOW + 10) == (NEW.key_id,)


def test_a_key_means_itself_though_it_is_no_longer_pinned() -> None:
    gone = KeyPair(*COMPOSITE.generate()).key_id
    assert KNOWN.keys(gone, NOW) == (gone,)


@pytest.mark.parametrize("written", ["carol", "agent", "", OLD.key_id[:-1]])
def test_a_name_that_is_no_clients_is_an_error(written: str) -> None:
    with pytest.raises(GateError, match=r"session\.principal_unknown"):
        KNOWN.keys(written, NOW)
