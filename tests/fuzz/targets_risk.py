"""The decoders of risk, device trust and the live feed, in the form of `targets`."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.crypto import COMPOSITE
from ringfence.plugin.device import reputation
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk import forest, networks, snapshot, state
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.history import COLUMNS
from ringfence.plugin.risk.port import Features
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.threats import watch
from ringfence.trust import KeyPair
from tests.fuzz.target import Target

_SIGNER = KeyPair(*COMPOSITE.generate())
_KEYS = {_SIGNER.key_id: _SIGNER.public}
_SETTINGS = RiskSettings()


def _assessor() -> Assessor:
    assessor = Assessor(_SETTINGS)
    for minute in range(3):
        assessor.assess(Features("p", "s", "SubmitJob", 9, "r", 0, 60 * minute))
    assessor.refused("q", authenticated=True, now=180)
    return assessor


def _devices() -> bytes:
    kept = reputation.BetaReputation(DeviceSettings())
    kept.observe("host", good=False, weight=1.0, now=1)
    return reputation.payload(kept.clock.steady, kept.entries())


def _restored(data: bytes) -> None:
    # What was restored must also be scored without surprise.
    assessor = snapshot.restored(data, _SETTINGS)
    for minute in range(2):
        for principal in ("p", "q"):
            assessor.assess(Features(principal, "s", "SubmitJob", 1 << 40, "r", 1, 60 * minute))


def _forest(data: bytes) -> None:
    found = forest.decode_forest(data)
    found.because([0.0] * len(COLUMNS))


def _networks(data: bytes) -> None:
    found = networks.parse_networks(data, "fuzz")
    for address in ("192.0.2.1", "2001:db8::1", data[:40].decode("latin-1")):
        found.region(address)


_KNOWN = _assessor()
_PAYLOAD = snapshot.payload(_KNOWN, snapshot.entries(_KNOWN))
_STATE = state.seal_state(state.State(snapshot.KIND, 1, 1, _PAYLOAD), _SIGNER)
_TREE = forest.Tree((1, -1, -1), (2, -1, -1), (0, -1, -1), (1.5, -2.0, -2.0), (9, 4, 5))
_FOREST = forest.encode_forest(forest.Forest(COLUMNS, 9, (0.0,) * len(COLUMNS), 0.5, 9, 1, (_TREE,)))
_EVENT = (
    b'{"event":"threat","at":1,"pattern":"p","against":"source","subject":"s","count":1,"reaction":"tell","until":0}'
)

TARGETS: Mapping[str, Target] = {
    "plugin.device.reputation": Target(lambda data: reputation.restored(data, DeviceSettings()), (_devices(),)),
    "plugin.risk.forest": Target(_forest, (_FOREST,)),
    "plugin.risk.networks": Target(
        _networks, (b'version = 1\n[regions]\noffice = ["192.0.2.0/24", "2001:db8::/32"]\n',)
    ),
    "plugin.risk.snapshot": Target(_restored, (_PAYLOAD,)),
    "plugin.risk.state": Target(lambda data: state.open_state(data, snapshot.KIND, keys=_KEYS), (_STATE,)),
    "plugin.threats.watch": Target(watch.decode_event, (_EVENT,)),
}
