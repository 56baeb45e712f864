"""What the policy commands read from elsewhere: queries, recorded decisions and signatures.

Each is a decoder with inputs to start from, the two fields of `targets.Target`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ringfence.crypto import COMPOSITE
from ringfence.policies import queries, recorded, signature
from ringfence.policies.folder import open_bundled
from ringfence.trust import KeyPair, Pin, Role, TrustList

_KEY = KeyPair(*COMPOSITE.generate())
_TRUST = TrustList((Pin("signer", Role.POLICY_SIGNER, _KEY.public, 0),))
_FILES = {"manifest.toml": b'name = "t"\nversion = 1\ndescription = "d"\n'}
_LINE = (
    b'{"v":2,"seq":1,"base":0,"prev":"' + b"0" * 64 + b'","time_ns":1,"kind":"decision/2","data":{"decision_id":"d",'
    b'"pipeline":"session","verdict":"allow","principal":"a","action":"OpenSession","resource":"h","stages":'
    b'[["policy","allow","",1]],"asked":{"groups":["clients"],"context":{}}}}'
)

TARGETS: Mapping[str, tuple[Callable[[bytes], object], tuple[bytes, ...]]] = {
    "policies.queries": (
        lambda data: queries.parse_query(data, "fuzz"),
        (b'{"principal":"a","groups":["clients"],"action":"SubmitJob","resource":"h","context":{"risk":1}}',),
    ),
    "policies.recorded": (recorded.recorded, (_LINE,)),
    "policies.signature": (
        lambda data: signature.verify_signature(_FILES, data, _TRUST, 1, open_bundled),
        (signature.sign(_FILES, open_bundled, _KEY, 0),),
    ),
}
