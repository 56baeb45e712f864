"""What an attacker tries between the stages: sessions that policies or pins have left behind, factors, and replays."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from ringfence.plugin.pipeline.reconsider import reconsider
from ringfence.plugin.pipeline.stages import COOKIE_FACTOR
from ringfence.plugin.sessions.port import Ended
from ringfence.plugin.sessions.revocations import History, begun_record, closed_record, taken_record
from ringfence.policies import SessionContext, Verdict
from tests.plugin.test_plugin_access import BUNDLE, HOST, NOW, Gateway, allowed, browser, refused

OLD = "c" * 64


def test_changed_policies_take_no_cookie_for_a_signature() -> None:
    gateway = Gateway(bundle_digest=OLD, factors=((COOKIE_FACTOR, 0), ("oidc", 0), ("webauthn", NOW + 60)))
    allowed(gateway.ask(browser(gateway)))
    assert gateway.policies.queries[0].context.factors == ("oidc", "webauthn")


def test_changed_policies_are_asked_what_they_were_asked_at_the_opening() -> None:
    gateway = Gateway(bundle_digest=OLD, factors=(("session-mac", 0),))
    allowed(gateway.ask(gateway.signed()))
    context = gateway.policies.queries[0].context
    assert isinstance(context, SessionContext)
    assert (context.factors, context.resource_tenant) == (("signature",), "")


def test_a_session_that_a_decision_ends_is_given_to_whoever_records_it() -> None:
    gateway = Gateway(bundle_digest=OLD)
    gateway.policies.verdicts = iter([Verdict(False, (), ())])
    history = History()
    history.see(begun_record(1))
    history.see(taken_record(1, "a" * 64))
    refused(gateway.ask(gateway.signed()), "session.policy_changed")
    ((session, why),) = gateway.sessions.sweep(now=NOW)
    assert (session.name, why) == ("session", Ended.POLICY)
    # Without that record, the snapshot from before would bring the session back.
    assert history.revives(session)
    history.see(closed_record(session, why))
    assert not history.revives(session)


def test_a_session_that_ends_with_its_hosts_trust_is_given_to_whoever_records_it() -> None:
    gateway = Gateway()
    host = replace(HOST, trust=replace(HOST.trust, status=type(HOST.trust.status)("warning")))
    refused(gateway.pipeline.decide(gateway.signed(), host, now=NOW), "device.trust_changed")
    assert [(session.name, why) for session, why in gateway.sessions.sweep(now=NOW)] == [("session", Ended.TRUST)]


def test_a_session_without_requests_is_bound_to_the_present_policies_or_retired() -> None:
    gateway = Gateway(bundle_digest=OLD)
    means = gateway.means
    reconsider(means, gateway.session, HOST, now=NOW)
    kept = gateway.sessions.find("session", now=NOW)
    assert kept.bundle_digest == BUNDLE
    gateway.policies.verdicts = iter([Verdict(False, (), ())])
    reconsider(means, structs.replace(kept, bundle_digest=OLD), HOST, now=NOW)
    assert [(session.name, why) for session, why in gateway.sessions.sweep(now=NOW)] == [("session", Ended.POLICY)]
