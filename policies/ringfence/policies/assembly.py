"""Builds a checked bundle out of the bytes of its files: every check that comes before a policy may decide.

The order matters: our own limits first, then Cedar's parser, then its type checker against the schema, then a probe
of each action with the context that Ringfence will really send.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence

import cedarpy
import msgspec

from ringfence.policies.bundle import Bundle, Case, Policy
from ringfence.policies.cases import BASES, parse_cases
from ringfence.policies.decision import Query
from ringfence.policies.engine import principal_entity, request
from ringfence.policies.errors import (
    BAD_CASE,
    BAD_LAYOUT,
    BAD_MANIFEST,
    BAD_SCHEMA,
    BAD_SYNTAX,
    BAD_TYPES,
    DUPLICATE_ID,
    TOO_LARGE,
    PolicyError,
)
from ringfence.policies.tokens import Statement, check_schema_text, statements

MANIFEST = "manifest.toml"
SCHEMA = "schema.cedarschema"
MAX_FILE_BYTES = 1024 * 1024
"""Most bytes in one file of a bundle."""
MAX_FILES = 256
"""Most files in a bundle."""
MAX_POLICIES = 10_000
"""Most policies in a bundle's own files."""
MAX_BASES = 32
"""Most bundles that one extends."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`manifest.toml`. With `extends`, the bundle is those shipped ones, less the policies in `remove`, plus its own.

    Shipped bundles share the policies of `default`; what two of them have in common is there once.
    """

    name: str
    version: int
    description: str
    extends: str | tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def bases(self) -> tuple[str, ...]:
        """The names of the bundles that it extends, in the order in which they are joined."""
        if isinstance(self.extends, str):
            return (self.extends,) if self.extends else ()
        return self.extends


def assemble(files: Mapping[str, bytes], base_named: Callable[[str], Bundle]) -> Bundle:
    """Check a bundle's files (by path inside the bundle) and join them with the bundle that they extend, if any.

    `base_named` gives the bundle of a name, or raises. Raises `PolicyError` with file, line and remedy.
    """
    check_limits(files)
    manifest = read_manifest(files)
    bases = tuple(base_named(name) for name in manifest.bases)
    if bases and SCHEMA in files:
        raise PolicyError(
            BAD_LAYOUT,
            "The bundle extends another and brings its own schema.",
            field=SCHEMA,
            hint="Remove it: the extended bundle's schema holds.",
        )
    schema_text = bases[0].schema if bases else _text(files, SCHEMA)
    if any(base.schema != schema_text for base in bases):
        raise _bad_manifest("The bundles that it extends have different schemas.")
    schema = _schema(schema_text)
    kept = _kept(bases, manifest.remove)
    own = tuple(_policies(files, schema))
    policies = kept + own
    _check_unique(policies)
    if not policies:
        raise PolicyError(
            BAD_LAYOUT, "The bundle has no policy.", field="policies/", hint="Add a .cedar file with a policy."
        )
    return Bundle(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        digest=bundle_digest(files, bases),
        schema=schema_text,
        policies=policies,
        cases=tuple(_cases(files, {policy.id for policy in policies})),
    )


def bundle_digest(files: Mapping[str, bytes], bases: Sequence[Bundle]) -> str:
    """Hex SHA-256 over a line for each file, sorted by path (`<sha256> <size> <path>`), and one for each base."""
    listing = ["ringfence policy bundle 1"]
    listing += [f"extends {base.digest} {base.name}" for base in bases]
    listing += [f"{hashlib.sha256(data).hexdigest()} {len(data)} {path!r}" for path, data in sorted(files.items())]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def check_limits(files: Mapping[str, bytes]) -> None:
    """Check number and size of a bundle's files; raises `PolicyError` (policy.too_large)."""
    if len(files) > MAX_FILES:
        raise PolicyError(
            TOO_LARGE, f"The bundle has more than {MAX_FILES} files.", field="policies/", hint="Join small files."
        )
    for path, data in files.items():
        if len(data) > MAX_FILE_BYTES:
            raise PolicyError(
                TOO_LARGE,
                f"The file is larger than {MAX_FILE_BYTES} bytes.",
                field=path,
                hint="Split it into several files.",
            )


def read_manifest(files: Mapping[str, bytes]) -> Manifest:
    """The manifest of a bundle's files; raises `PolicyError` (policy.bad_manifest, policy.bad_layout)."""
    try:
        manifest = msgspec.convert(tomllib.loads(_text(files, MANIFEST)), Manifest)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise _bad_manifest(f"The manifest does not say what it must: {error}.") from error
    if not manifest.name or not manifest.description or manifest.version < 1:
        raise _bad_manifest("The manifest needs a name, a description and a version of at least 1.")
    if manifest.remove and not manifest.bases:
        raise _bad_manifest("The manifest removes policies but extends no bundle.")
    if len(set(manifest.bases)) != len(manifest.bases) or len(manifest.bases) > MAX_BASES:
        raise _bad_manifest(f"The manifest extends a bundle twice, or more than {MAX_BASES}.")
    return manifest


def _text(files: Mapping[str, bytes], path: str) -> str:
    if path not in files:
        raise PolicyError(
            BAD_LAYOUT,
            f"The bundle has no {path}.",
            field=path,
            hint="A bundle holds a manifest, a schema and policies.",
        )
    try:
        return files[path].decode()
    except UnicodeDecodeError as error:
        raise PolicyError(
            BAD_SYNTAX, "The file is not UTF-8.", field=path, hint="Save it as UTF-8 without a byte-order mark."
        ) from error


def _schema(text: str) -> cedarpy.Schema:
    check_schema_text(text, SCHEMA)
    try:
        schema = cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise _bad_schema(f"Cedar does not accept the schema: {error}.") from error
    nothing = cedarpy.PolicySet.from_str("")
    for action, context in BASES.items():
        query = Query("probe", ("probe",), action, "probe", context)
        probe = cedarpy.is_authorized(request(query), nothing, principal_entity(query), schema)
        if probe.diagnostics.errors:
            raise _bad_schema(f"{action.value} does not fit the schema: {probe.diagnostics.errors[0]}.")
    return schema


def _policies(files: Mapping[str, bytes], schema: cedarpy.Schema) -> list[Policy]:
    found: list[Policy] = []
    for path in sorted(path for path in files if path.startswith("policies/")):
        for statement in statements(_text(files, path), path):
            if len(found) == MAX_POLICIES:
                raise PolicyError(
                    TOO_LARGE,
                    f"The bundle has more than {MAX_POLICIES} policies.",
                    field=f"{path}:{statement.line}",
                    hint="Name groups in the policies' scopes instead of principals.",
                )
            _check_policy(statement, path, schema)
            found.append(
                Policy(
                    id=statement.id,
                    description=statement.description,
                    effect=statement.effect,
                    file=path,
                    line=statement.line,
                    text=statement.text,
                    step_up=statement.step_up,
                )
            )
    return found


def _check_policy(statement: Statement, path: str, schema: cedarpy.Schema) -> None:
    where = f"{path}:{statement.line}"
    try:
        parsed = cedarpy.PolicySet.from_str(statement.text)
    except ValueError as error:
        raise PolicyError(
            BAD_SYNTAX,
            f"Cedar cannot parse the policy {statement.id}: {error}.",
            field=where,
            hint="Mend the policy that begins at this line.",
        ) from error
    if parsed.templates():
        raise PolicyError(
            BAD_SYNTAX,
            f"The policy {statement.id} is a template, which permits nothing until it is linked.",
            field=where,
            hint="Name a group in the policy's scope instead of a slot.",
        )
    checked = cedarpy.validate_policies(statement.text, schema)
    if not checked.validation_passed:
        reasons = "; ".join(str(error.error).replace("`policy0`", statement.id) for error in checked.errors)
        raise PolicyError(
            BAD_TYPES,
            f"The policy does not fit the schema: {reasons}.",
            field=where,
            hint=f"Compare the names and types with {SCHEMA}.",
        )


def _kept(bases: Sequence[Bundle], remove: tuple[str, ...]) -> tuple[Policy, ...]:
    """The policies of all bases, those that they share once; one id with two texts is left for `_check_unique`."""
    joined = tuple(dict.fromkeys(policy for base in bases for policy in base.policies))
    unknown = sorted(set(remove) - {policy.id for policy in joined})
    if unknown:
        names = ", ".join(base.name for base in bases)
        raise _bad_manifest(f"The manifest removes {unknown[0]!r}, which the bundle {names} does not have.")
    return tuple(policy for policy in joined if policy.id not in remove)


def _check_unique(policies: tuple[Policy, ...]) -> None:
    first: dict[str, Policy] = {}
    for policy in policies:
        other = first.setdefault(policy.id, policy)
        if other is not policy:
            raise PolicyError(
                DUPLICATE_ID,
                f"Two policies have the id {policy.id}; the other is at {other.file}:{other.line}.",
                field=f"{policy.file}:{policy.line}",
                hint="Rename one: decision records name policies by id.",
            )


def _cases(files: Mapping[str, bytes], ids: set[str]) -> list[Case]:
    found: dict[str, Case] = {}
    for path in sorted(path for path in files if path.startswith("tests/")):
        for case in parse_cases(_text(files, path), path):
            if case.name in found:
                raise _bad_case(path, f"Two cases are named {case.name!r}.")
            if not ids.issuperset(case.policies):
                raise _bad_case(path, f"The case {case.name!r} expects a policy that the bundle does not have.")
            found[case.name] = case
    return list(found.values())


def _bad_manifest(message: str) -> PolicyError:
    return PolicyError(
        BAD_MANIFEST,
        message,
        field=MANIFEST,
        hint="It holds name, version and description, and for a variant of a shipped bundle extends and remove.",
    )


def _bad_schema(message: str) -> PolicyError:
    return PolicyError(BAD_SCHEMA, message, field=SCHEMA, hint="Start from the schema of the shipped bundle `default`.")


def _bad_case(file: str, message: str) -> PolicyError:
    return PolicyError(BAD_CASE, message, field=file, hint="Give each case its own name and policies that exist.")
