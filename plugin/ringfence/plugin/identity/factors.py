"""The one list of built-in identity factors, and how settings become factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ringfence.plugin.identity import behaviour, device, oidc, svid, webauthn
from ringfence.plugin.identity.behaviour import BehaviourScore
from ringfence.plugin.identity.bundles import BundleFiles
from ringfence.plugin.identity.ceremony import RelyingParty
from ringfence.plugin.identity.credentials import CredentialFile, CredentialStore
from ringfence.plugin.identity.directory import DirectorySource, KeptDirectory
from ringfence.plugin.identity.directory_file import DirectoryFile
from ringfence.plugin.identity.errors import SETTINGS_INVALID, IdentityError
from ringfence.plugin.identity.fetching import HttpsFetcher
from ringfence.plugin.identity.key_file import KeyFile
from ringfence.plugin.identity.key_https import KeyAddress
from ringfence.plugin.identity.keyring import JwksSource, Keyring
from ringfence.plugin.identity.port import Factor
from ringfence.plugin.identity.scim import ScimSource
from ringfence.plugin.identity.settings import (
    DeviceSettings,
    FileDirectorySettings,
    IdentitySettings,
    KeySetSettings,
    ScimDirectorySettings,
    WebAuthnSettings,
)
from ringfence.plugin.identity.subjects import SubjectMap
from ringfence.trust import Role, TrustList

BUILT_IN: Final = (svid.NAME, oidc.NAME, webauthn.NAME, device.NAME, behaviour.NAME)
"""Every factor that this gateway can take, by the name that policies read in `context.factors`."""

SIGNATURE: Final = "signature"
"""The factor of the key that opened the session, which the signature stage verifies; its subject is the pin's name."""

BY_NAME: Final = (SIGNATURE, webauthn.NAME, behaviour.NAME)
"""Factors whose subject is a principal already, because it was pinned, enrolled or measured here under that name."""


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors that the settings ask for, and what others need of them: the credentials to enrol into, the map."""

    by_name: Mapping[str, Factor]
    subjects: SubjectMap
    credentials: CredentialStore | None = None


def build(settings: IdentitySettings, *, trust: Callable[[], TrustList], behaviour_score: BehaviourScore) -> Factors:
    """The factors of `settings`. Reads the files that they name, so that a gateway does not start with bad ones.

    Raises `IdentityError` and `ConfigError`.
    """
    found: dict[str, Factor] = {}
    credentials: CredentialStore | None = None
    if (one := settings.svid) is not None:
        bundles = BundleFiles(one.bundles)
        found[svid.NAME] = svid.SvidFactor(bundles, max_lifetime_s=one.max_lifetime_s, remembered=one.remembered)
    if settings.oidc is not None:
        found[oidc.NAME] = oidc.OidcFactor(settings.oidc, keyring(settings.oidc.keys))
    if settings.webauthn is not None:
        credentials = CredentialFile(settings.webauthn.credentials)
        found[webauthn.NAME] = webauthn.WebAuthnFactor(
            relying_party(settings.webauthn), credentials, lifetime_s=settings.webauthn.lifetime_s
        )
    if settings.device is not None:
        found[device.NAME] = device.DeviceFactor(
            _verifiers(settings.device, trust), minimum=settings.device.minimum, max_age_s=settings.device.max_age_s
        )
    if (how := settings.behaviour) is not None:
        found[behaviour.NAME] = behaviour.BehaviourFactor(
            behaviour_score, familiarity=how.familiarity, lifetime_s=how.lifetime_s
        )
    return Factors(found, SubjectMap.of(settings.subjects, named=BY_NAME), credentials)


def directory(settings: FileDirectorySettings | ScimDirectorySettings) -> KeptDirectory:
    """The directory of `settings`; call its `refresh` before the first look-up and then every `refresh_s`."""
    source: DirectorySource
    if isinstance(settings, FileDirectorySettings):
        source = DirectoryFile(settings.path)
    else:
        source = ScimSource(settings, HttpsFetcher(settings.authorities))
    return KeptDirectory(source, max_age_s=settings.max_age_s)


def keyring(settings: KeySetSettings) -> Keyring:
    """The keys that `settings` point to. Raises `identity.settings_invalid` unless it is one of file and url."""
    if (settings.file is None) == (not settings.url):
        raise IdentityError(
            SETTINGS_INVALID,
            "An issuer's keys come from a file or from an address: exactly one of the two.",
            field="keys",
            hint="Set `file` or `url`.",
        )
    source: JwksSource
    if settings.file is not None:
        source = KeyFile(settings.file)
    else:
        source = KeyAddress(settings.url, HttpsFetcher(settings.authorities), timeout_s=settings.timeout_s)
    return Keyring(source, settings)


def relying_party(settings: WebAuthnSettings) -> RelyingParty:
    """This gateway as authenticators know it."""
    return RelyingParty(settings.rp_id, frozenset(settings.origins))


def _verifiers(settings: DeviceSettings, trust: Callable[[], TrustList]) -> Callable[[int], Mapping[str, bytes]]:
    wanted = frozenset(settings.verifiers)

    def pinned(now: int) -> Mapping[str, bytes]:
        # Asked each time: a verifier whose pin is removed stops counting.
        return {pin.key_id: pin.public for pin in trust().by_role(Role.VERIFIER, now) if pin.key_id in wanted}

    return pinned
