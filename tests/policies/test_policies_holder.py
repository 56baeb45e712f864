"""A new bundle takes the old one's place whole or not at all, and never goes back by itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

import pytest

from ringfence.client.bench.policy_bundles import job, ten, thousand
from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.cases import BASE_SESSION
from ringfence.policies.compiled.guarded import Guard, GuardSettings
from ringfence.policies.decision import Action, Decider, Query, Verdict
from ringfence.policies.errors import BAD_SYNTAX, ROLLED_BACK, PolicyError
from ringfence.policies.folder import open_bundled
from ringfence.policies.holder import DEFAULTS, BundleHolder, HolderSettings, ShadowDecision, guarded_engine, paced

QUERY = Query("alice", ("clients",), Action.OPEN_SESSION, "gpu-1", BASE_SESSION)
ENGINE = guarded_engine(Guard(GuardSettings(), lambda: 0, lambda most: most - 1, lambda _: None))
ALLOWED = Verdict(True, ("permit-session-attested-host",), ())


@dataclass
class Folder:
    """A source that gives what it holds."""

    bundle: Bundle
    error: PolicyError | None = None

    def read(self) -> Bundle:
        if self.error is not None:
            raise self.error
        return self.bundle


@dataclass
class Bench:
    """A holder of a folder, and what it records."""

    folder: Folder
    settings: HolderSettings = DEFAULTS
    recorded: list[ShadowDecision] = field(default_factory=list)

    def holder(self) -> BundleHolder:
        pause = paced(time.perf_counter, time.sleep)
        return BundleHolder(self.folder.read, ENGINE, pause, self.recorded.append, self.settings)


def version(number: int, *, forbidding: bool = False) -> Bundle:
    default = open_bundled("default")
    text = '@id("all") @description("d") forbid (principal, action, resource);'
    extra = (Policy("all", "d", "forbid", "policies/all.cedar", 1, text),) if forbidding else ()
    return replace(default, version=number, digest=f"{number:064x}", policies=default.policies + extra)


def test_holder_decides_by_its_first_bundle() -> None:
    holder: Decider = Bench(Folder(version(3))).holder()
    assert holder.decide(QUERY) == ALLOWED
    assert holder.bundle_digest == f"{3:064x}"


def test_higher_version_takes_over() -> None:
    bench = Bench(Folder(version(3)))
    holder = bench.holder()
    assert not holder.reload()
    bench.folder.bundle = version(4, forbidding=True)
    assert holder.reload()
    assert holder.decide(QUERY) == Verdict(False, ("all",), ())
    assert (holder.bundle.version, holder.bundle_digest) == (4, f"{4:064x}")


def test_prepared_bundle_decides_nothing_before_it_is_installed() -> None:
    bench = Bench(Folder(version(3)))
    holder = bench.holder()
    bench.folder.bundle = version(4, forbidding=True)
    prepared = holder.prepare()
    assert prepared is not None
    assert holder.decide(QUERY) == ALLOWED
    holder.install(prepared)
    assert not holder.decide(QUERY).allowed


@pytest.mark.parametrize("number", [1, 2, 3])
def test_version_that_does_not_rise_is_refused_unless_it_is_named(number: int) -> None:
    bench = Bench(Folder(version(3)))
    holder = bench.holder()
    bench.folder.bundle = replace(version(number, forbidding=True), digest="ab" * 32)
    for named in (None, number + 1):
        with pytest.raises(PolicyError) as caught:
            holder.reload(named)
        assert caught.value.code is ROLLED_BACK
    assert holder.decide(QUERY) == ALLOWED
    assert holder.reload(number)
    assert not holder.decide(QUERY).allowed


def test_version_below_the_least_is_refused_at_the_start() -> None:
    assert Bench(Folder(version(3)), HolderSettings(least_version=3)).holder().bundle.version == 3
    with pytest.raises(PolicyError) as caught:
        Bench(Folder(version(3)), HolderSettings(least_version=4)).holder()
    assert caught.value.code is ROLLED_BACK


def test_bad_bundle_leaves_the_last_good_one() -> None:
    bench = Bench(Folder(version(3)))
    holder = bench.holder()
    bench.folder.error = PolicyError(BAD_SYNTAX, "m", field="policies/x.cedar:1", hint="h")
    with pytest.raises(PolicyError) as caught:
        holder.reload()
    assert caught.value.code is BAD_SYNTAX
    assert holder.decide(QUERY) == ALLOWED


def test_shadow_is_decided_and_recorded_but_not_enforced() -> None:
    bench = Bench(Folder(version(3)))
    holder = bench.holder()
    holder.set_shadow(version(9, forbidding=True))
    assert holder.decide(QUERY) == ALLOWED
    [recorded] = bench.recorded
    assert (recorded.query, recorded.verdict, recorded.shadow) == (QUERY, ALLOWED, Verdict(False, ("all",), ()))
    assert (recorded.shadow_digest, recorded.shadow_version) == (f"{9:064x}", 9)
    holder.set_shadow(None)
    holder.decide(QUERY)
    assert len(bench.recorded) == 1
    assert holder.bundle.version == 3


def test_sampled_decisions_are_checked_on_request() -> None:
    engine = guarded_engine(Guard(GuardSettings(every=1, at_once=2), lambda: 0, lambda most: most - 1, lambda _: None))
    holder = BundleHolder(Folder(version(1)).read, engine, lambda: None, lambda _: None)
    for _ in range(10):
        holder.decide(QUERY)
    assert holder.check_sampled() == 10
    assert holder.check_sampled() == 0


def test_policy_that_is_not_covered_is_decided_by_cedarpy() -> None:
    deep = "context.risk > 200" + " && context.risk > 200" * 120
    text = f'@id("deep") @description("d") forbid (principal, action, resource) when {{ {deep} }};'
    bundle = version(1)
    policies = (*bundle.policies, Policy("deep", "d", "forbid", "policies/deep.cedar", 1, text))
    holder = Bench(Folder(replace(bundle, policies=policies))).holder()
    assert holder.decide(QUERY) == ALLOWED


def test_requests_are_decided_while_a_thousand_policies_are_loaded() -> None:
    bench = Bench(Folder(replace(ten(), version=1)))
    holder = bench.holder()
    bench.folder.bundle = replace(thousand(), version=2)
    before = holder.decide(job())
    reloading = threading.Thread(target=holder.reload)
    reloading.start()
    decided = 0
    while reloading.is_alive():
        assert holder.decide(job()) == before
        decided += 1
    reloading.join()
    # The figure itself is the benchmark's: here other tests share the processors.
    assert decided > 100
    assert holder.bundle.version == 2
