"""Loads a bundle by way of the child: the gateway makes nothing of a text that the child did not survive.

Threat: a bundle whose text crashes or stalls Cedar's parser, or takes all memory, would end every session of a gateway
that reads it. Here it ends one child, and the last good bundle goes on deciding.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Annotated, BinaryIO, Final

import msgspec

from ringfence.errors import Code
from ringfence.policies import errors as bundle_errors
from ringfence.policies.assembly import bundle_digest
from ringfence.policies.bundle import Bundle
from ringfence.policies.errors import TOO_LARGE, PolicyError
from ringfence.policies.folder import open_bundled, read_files, shipped_files
from ringfence.policies.loading.errors import CHILD_DIED, CHILD_LATE, CHILD_LIED
from ringfence.policies.loading.messages import (
    MAX_ANSWER_BYTES,
    MAX_ORDER_BYTES,
    Answer,
    Order,
    Refused,
    decode_answer,
)

CHILD: Final = (sys.executable, "-I", "-m", "ringfence.policies.loading.child")
"""The child, without its limits."""
_CODES: Final[Mapping[str, Code]] = {code.name: code for code in vars(bundle_errors).values() if isinstance(code, Code)}


class LoadingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What reading one bundle may take: seconds on the clock, of which the child may compute all, and its memory."""

    deadline_s: Annotated[int, msgspec.Meta(ge=1, le=600)] = 60
    memory_bytes: Annotated[int, msgspec.Meta(ge=128 * 1024**2, le=64 * 1024**3)] = 1024**3


DEFAULTS: Final = LoadingSettings()


def load_checked(folder: Traversable, settings: LoadingSettings = DEFAULTS, child: Sequence[str] = CHILD) -> Bundle:
    """Load and check the bundle in a folder in a child process. It blocks: call it on a thread of its own.

    Raises `PolicyError`: what the checks say, policy.too_large, policy.child_died, policy.child_late,
    policy.child_lied.
    """
    files = read_files(folder)
    order = msgspec.msgpack.encode(Order(files, shipped_files()))
    if len(order) > MAX_ORDER_BYTES:
        raise PolicyError(
            TOO_LARGE,
            f"The bundle's files have more than {MAX_ORDER_BYTES} bytes together.",
            field=str(folder),
            hint="Split it, or compare with sets and groups instead of naming each principal.",
        )
    return accept(parse_answer(_asked(order, settings, child)), files)


def _asked(order: bytes, settings: LoadingSettings, child: Sequence[str]) -> bytes:
    """What the child answers. Both go through memory files: nobody waits for a reader, and the kernel bounds them."""
    command = [*child, str(settings.memory_bytes), str(settings.deadline_s)]
    with _memory_file("order") as source, _memory_file("answer") as sink:
        source.write(order)
        source.seek(0)
        running = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=source, stdout=sink, stderr=subprocess.DEVNULL, env={}, close_fds=True
        )
        try:
            status = running.wait(settings.deadline_s)
        except subprocess.TimeoutExpired as error:
            raise PolicyError(
                CHILD_LATE,
                f"Reading the bundle took more than {settings.deadline_s} s.",
                field="bundle",
                hint="Make its policies simpler or fewer.",
            ) from error
        finally:
            running.kill()
            running.wait()
        if status != 0:
            raise PolicyError(
                CHILD_DIED,
                f"Reading the bundle ended the process that reads it ({_ending(status)}).",
                field="bundle",
                hint="Look for a policy that nests very deeply or is very long, and make it simpler.",
            )
        sink.seek(0)
        return sink.read(MAX_ANSWER_BYTES)


def _memory_file(name: str) -> BinaryIO:
    return os.fdopen(os.memfd_create(f"ringfence-{name}"), "w+b")


def _ending(status: int) -> str:
    return f"exit status {status}" if status > 0 else signal.Signals(-status).name


def parse_answer(data: bytes) -> Answer:
    """What the child answered; raises `PolicyError` (policy.child_lied) for bytes that are no answer."""
    try:
        return decode_answer(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _lie("its answer does not parse") from error


def _refusal(refused: Refused) -> PolicyError:
    code = _CODES.get(refused.code)
    if code is None:
        return _lie("it refuses with a code that there is not")
    return PolicyError(code, refused.message, field=refused.field, hint=refused.hint)


def accept(answer: Answer, files: Mapping[str, bytes]) -> Bundle:
    """The bundle, once it is clear that it is made of these files: a text may have taken the child over.

    Raises `PolicyError`: the refusal, or policy.child_lied.
    """
    if isinstance(answer, Refused):
        raise _refusal(answer)
    try:
        bundle = answer.bundle()
    except (msgspec.ValidationError, PolicyError) as error:
        raise _lie("it gives a case that cannot be") from error
    bases = [open_bundled(name) for name in answer.extends]
    inherited = frozenset(policy for base in bases for policy in base.policies)
    strange = [
        policy
        for policy in bundle.policies
        if policy not in inherited and policy.text.encode() not in files.get(policy.file, b"")
    ]
    if strange or not bundle.policies or bundle.digest != bundle_digest(files, bases):
        raise _lie("it gives a bundle that is not made of these files")
    return bundle


def _lie(what: str) -> PolicyError:
    return PolicyError(
        CHILD_LIED,
        f"The process that reads bundles cannot be believed: {what}.",
        field="bundle",
        hint="Do not load the bundle; find out who wrote it.",
    )
