"""Error codes of the host adapters: what is wrong with a request before the decision core is asked."""

from __future__ import annotations

from ringfence.errors import Code, Kind
from ringfence.plugin.errors import GateError


class HostError(GateError):
    """A request that an adapter refuses by itself, or a host that speaks its protocol wrongly."""


TARGET_MALFORMED = Code("hosts.target_malformed", Kind.INVALID)
FIELDS_MALFORMED = Code("hosts.fields_malformed", Kind.INVALID)
FIELDS_TOO_LARGE = Code("hosts.fields_too_large", Kind.TOO_LARGE)
CONNECTION_NAMES_FIELD = Code("hosts.connection_names_field", Kind.INVALID)
OWN_FIELD = Code("hosts.own_field", Kind.INVALID)
ADDRESS_MALFORMED = Code("hosts.address_malformed", Kind.INVALID)
PROTOCOL_VIOLATED = Code("hosts.protocol_violated", Kind.INVALID)
AUTHZEN_MALFORMED = Code("hosts.authzen_malformed", Kind.INVALID)
UPSTREAM_UNKNOWN = Code("hosts.upstream_unknown", Kind.NOT_FOUND)
UPGRADE_REFUSED = Code("hosts.upgrade_refused", Kind.DENIED)
GROUP_REFUSED = Code("hosts.group_refused", Kind.DENIED)
BODY_TOO_LARGE = Code("hosts.body_too_large", Kind.TOO_LARGE)
BODY_LATE = Code("hosts.body_late", Kind.DEADLINE)
HOST_BUSY = Code("hosts.busy", Kind.EXHAUSTED)
DECISION_LATE = Code("hosts.decision_late", Kind.DEADLINE)
DECISION_FAILED = Code("hosts.decision_failed", Kind.INTERNAL)
LISTEN_REFUSED = Code("hosts.listen_refused", Kind.UNAVAILABLE)
