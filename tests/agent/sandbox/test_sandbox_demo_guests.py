"""The demo's guests: compiled from C, run through the whole sandbox, and compared with plain Python."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.agent.errors import DEADLINE, GUEST_EXIT, MEMORY_LIMIT, SandboxError
from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.client.guests import compile_guest, demo_guest
from ringfence.errors import BAD_ARGUMENT, UNREADABLE_FILE, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guests with a space")


async def _analyse(sandbox: ProcessSandbox, folder: Path, limits: Limits, text: str) -> dict[str, object]:
    module = compile_guest(demo_guest("analyse"), folder)
    outcome = await sandbox.run(GuestJob(module, text.encode(), limits))
    assert outcome.usage.launches >= 4
    assert (outcome.usage.measurements, outcome.usage.checkpoints) == (2, 4)
    result: dict[str, object] = json.loads(outcome.output)
    return result


def _expected(amounts: list[int], bit: object) -> dict[str, object]:
    total = sum(amounts)
    centre = int(abs(total) // len(amounts)) * (1 if total >= 0 else -1)
    spread = abs(centre) // 2
    changed = (
        [abs(amount - centre) for amount in amounts]
        if bit
        else [min(max(amount, centre - spread), centre + spread) for amount in amounts]
    )
    return {
        "rows": len(amounts),
        "sum": total,
        "sum_of_squares": sum(amount * amount for amount in amounts),
        "bit": bit,
        "branch": "abs_difference_i64" if bit else "clip_i64",
        "centre": centre,
        "spread": spread,
        "branch_sum": sum(changed),
        "second_bit": 0,
    }


async def test_the_analysis_of_many_rows_is_right(sandbox: ProcessSandbox, folder: Path, limits: Limits) -> None:
    source = random.Random(7)  # noqa: S311 - data of a test
    amounts = [source.randrange(10**6) for _ in range(100_000)]
    text = "id,amount_cents,region\n" + "".join(f"{at},{amount},r{at % 5}\n" for at, amount in enumerate(amounts))
    result = await _analyse(sandbox, folder, limits, text)
    assert result == _expected(amounts, result["bit"])


async def test_both_branches_are_taken_and_right(sandbox: ProcessSandbox, folder: Path, limits: Limits) -> None:
    amounts = [-500, 3, 0, 77, -12]
    text = " id , amount_cents, region\r\n\r\n" + "\n".join(f"a, {amount} ,r\r" for amount in amounts)
    seen = set()
    for _ in range(40):
        result = await _analyse(sandbox, folder, limits, text)
        assert result == _expected(amounts, result["bit"])
        seen.add(result["bit"])
        if len(seen) == 2:
            return
    pytest.fail("forty Bell pairs measured alike")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the input has no rows"),
        ("id,amount_cents,region\n", "the input has no rows"),
        ("h\n1,2,x\n1\n", "line 3: the row has no second field"),
        ("h\n1,,x\n", "line 2: the second field is not a whole number of cents"),
        ("h\n1,12.5,x\n", "line 2: the second field is not a whole number of cents"),
        ("h\n1,9999999999999999,x\n", "line 2: the amount has more than 15 digits"),
        ("h\n1,2\n", "line 2: the second field is not a whole number of cents"),
        ("h\n1,2,\n", "line 2: the third field is missing"),
        ("h\n1,2,x,y\n", "line 2: the row has more than three fields"),
        ("h\n" + "1,999999999999999,x\n" * 2, "the amounts are too large: squares would overflow"),
    ],
)
async def test_a_malformed_file_is_named_with_its_line(
    folder: Path, limits: Limits, sandbox: ProcessSandbox, text: str, said: str
) -> None:
    module = compile_guest(demo_guest("analyse"), folder)
    with pytest.raises(SandboxError) as caught:
        await sandbox.run(GuestJob(module, text.encode(), limits))
    assert caught.value.code == GUEST_EXIT
    assert caught.value.message == f"The guest exited with status 1, saying: {said}."


async def test_the_hog_outgrows_its_memory(folder: Path, limits: Limits, sandbox: ProcessSandbox) -> None:
    job = GuestJob(compile_guest(demo_guest("hog"), folder), b"", limits)
    with pytest.raises(SandboxError) as caught:
        await sandbox.run(job)
    assert caught.value.code == MEMORY_LIMIT


async def test_forever_meets_its_deadline(folder: Path, limits: Limits, sandbox: ProcessSandbox) -> None:
    job = GuestJob(compile_guest(demo_guest("forever"), folder), b"", replace(limits, deadline_ms=700))
    with pytest.raises(SandboxError) as caught:
        await sandbox.run(job)
    assert caught.value.code == DEADLINE


def test_what_was_compiled_is_kept(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "guest.c"
    source.write_text('#define RINGFENCE_FREESTANDING\n#include "ringfence.h"\nstatic int32_t f(void) { return 0; }\n')
    with source.open("a") as file:
        file.write("RINGFENCE_MAIN(f)\n")
    first = compile_guest(source, folder)
    (kept,) = folder.glob("guest-*.wasm")
    kept.write_bytes(b"from the cache")
    assert compile_guest(source, folder) == b"from the cache"
    with source.open("a") as file:
        file.write("/* changed */\n")
    assert compile_guest(source, folder) == first


def test_a_guest_that_does_not_compile_shows_the_compiler_s_words(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("int f(void) { return missing; }\n")
    with pytest.raises(UsageError, match="undeclared identifier 'missing'") as caught:
        compile_guest(source, folder)
    assert caught.value.code == BAD_ARGUMENT
    assert not list(folder.glob("broken-*"))


def test_a_source_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        compile_guest(tmp_path / "nothing.c", folder)
    assert caught.value.code == UNREADABLE_FILE
