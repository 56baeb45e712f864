"""A signature counts for exactly the files that it was made of, and from a pinned policy signer alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from ringfence.crypto import COMPOSITE
from ringfence.errors import Code
from ringfence.policies.errors import BAD_SIGNATURE, UNSIGNED, WRONG_SIGNER, PolicyError
from ringfence.policies.folder import load_bundle, open_bundled, read_files, read_signature
from ringfence.policies.signature import Statement, describe, sign, verify_signature
from ringfence.policies.signed import load_signed
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
KEY = KeyPair(*COMPOSITE.generate())
OTHER = KeyPair(*COMPOSITE.generate())
TRUST = TrustList(
    (
        Pin("ops", Role.POLICY_SIGNER, KEY.public, NOW, expires_at=NOW + 100),
        Pin("front", Role.GATEWAY, OTHER.public, NOW),
    )
)
FILES = {
    "manifest.toml": b'name = "t"\nversion = 2\ndescription = "d"\nextends = ["quotas"]\n',
    "policies/p.cedar": b'@id("p")\n@description("d")\npermit (principal, action, resource);\n',
}
SIGNED = sign(FILES, open_bundled, KEY, NOW)


def refusal(
    signature: bytes | None, *, files: Mapping[str, bytes] = FILES, trust: TrustList = TRUST, now: int = NOW
) -> Code:
    with pytest.raises(PolicyError) as caught:
        verify_signature(files, signature, trust, now, open_bundled)
    assert caught.value.hint
    return caught.value.code


def altered(**changes: object) -> bytes:
    document = json.loads(SIGNED)
    document["statement"] |= changes
    return json.dumps(document).encode()


def test_a_signature_names_its_signer_and_the_bundle() -> None:
    signer = verify_signature(FILES, SIGNED, TRUST, NOW, open_bundled)
    assert (signer.name, signer.statement.name, signer.statement.version) == ("ops", "t", 2)
    assert signer.statement.digest == describe(FILES, open_bundled)[2]
    assert signer.statement.signed_at == NOW


def test_the_digest_is_the_one_that_decisions_are_recorded_with(tmp_path: Path) -> None:
    for path, data in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    assert read_signature(tmp_path) is None
    before = load_bundle(tmp_path)
    (tmp_path / "bundle.sig").write_bytes(SIGNED)
    # The signature is no part of what is signed.
    assert load_bundle(tmp_path).digest == before.digest == describe(FILES, open_bundled)[2]
    assert read_files(tmp_path) == FILES
    assert read_signature(tmp_path) == SIGNED
    bundle, signer = load_signed(tmp_path, TRUST, NOW)
    assert (bundle.digest, signer.name) == (before.digest, "ops")
    (tmp_path / "bundle.sig").unlink()
    with pytest.raises(PolicyError) as caught:
        load_signed(tmp_path, TRUST, NOW)
    assert caught.value.code is UNSIGNED


def test_without_a_signature_nothing_is_loaded() -> None:
    assert refusal(None) is UNSIGNED


@pytest.mark.parametrize("path", [*FILES, "policies/new.cedar"])
def test_a_changed_or_added_file_is_noticed(path: str) -> None:
    assert refusal(SIGNED, files=FILES | {path: FILES.get(path, b"") + b"\n"}) is BAD_SIGNATURE


def test_a_removed_file_is_noticed() -> None:
    assert refusal(SIGNED, files={"manifest.toml": FILES["manifest.toml"]}) is BAD_SIGNATURE


@pytest.mark.parametrize("change", [{"version": 3}, {"name": "u"}, {"digest": "0" * 64}, {"signed_at": NOW + 1}])
def test_a_changed_statement_does_not_hold(change: dict[str, object]) -> None:
    assert refusal(altered(**change)) is BAD_SIGNATURE


def test_another_keys_signature_does_not_count() -> None:
    assert refusal(altered(key_id=OTHER.key_id)) is WRONG_SIGNER  # pinned, but as a gateway
    assert refusal(sign(FILES, open_bundled, OTHER, NOW)) is WRONG_SIGNER
    assert refusal(SIGNED, trust=TrustList()) is WRONG_SIGNER
    assert refusal(SIGNED, now=NOW + 100) is WRONG_SIGNER  # the pin has expired


def test_a_signature_for_another_purpose_does_not_count() -> None:
    document = json.loads(SIGNED)
    message = msgspec.json.encode(msgspec.convert(document["statement"], Statement))
    for context in (b"", b"ringfence grant"):
        document["signature"] = base64.b64encode(KEY.sign(message, context)).decode()
        assert refusal(json.dumps(document).encode()) is BAD_SIGNATURE


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100_000, SIGNED[:-10], altered(v=2), b" " * 20_000])
def test_what_is_no_signature_is_refused(data: bytes) -> None:
    assert refusal(data) is BAD_SIGNATURE
