"""The contract of every built-in GPU device, and what only the CPU device promises."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import ParamSpec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.errors import DEVICE_ARGUMENT, DEVICE_FAULT, KERNEL_UNKNOWN, SandboxError
from ringfence.agent.gpu.cpu import CpuDevice
from ringfence.agent.gpu.devices import BUILT_IN
from ringfence.agent.gpu.pool import MAX_ALLOCATIONS, MAX_POOL, Pool
from ringfence.agent.gpu.port import GpuDevice

P = ParamSpec("P")

POOL = 1 << 20
COUNT = 1000
I64 = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(params=sorted(BUILT_IN))
def device(request: pytest.FixtureRequest) -> Iterator[GpuDevice]:
    opened = BUILT_IN[request.param]()(POOL)
    assert opened.name == request.param
    yield opened
    opened.close()


def uploaded(device: GpuDevice, values: np.ndarray[tuple[int], np.dtype[np.int64 | np.float64]]) -> int:
    address = device.alloc(values.nbytes)
    assert address
    device.write(address, values.tobytes())
    return address


def raw(value: float) -> int:
    """8 raw bytes: of a float, or of a signed number."""
    layout = "<d" if isinstance(value, float) else "<q"
    return int.from_bytes(struct.pack(layout, value), "little")


def code_of(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> str:
    with pytest.raises(SandboxError) as caught:
        call(*args, **kwargs)
    return caught.value.code.name


class TestMemory:
    def test_fresh_memory_is_zero_and_addresses_are_aligned(self, device: GpuDevice) -> None:
        for size in (1, 7, 256, 4097, 100_000):
            address = device.alloc(size)
            assert address
            assert address % 256 == 0
            assert device.read(address, size) == bytes(size)
            device.write(address, b"\xff" * size)

    def test_a_new_device_shows_nothing_of_the_one_before(self, device: GpuDevice) -> None:
        address = device.alloc(POOL)
        device.write(address, b"\xaa" * POOL)
        device.close()
        after = BUILT_IN[device.name]()(POOL)
        assert after.read(after.alloc(POOL), POOL) == bytes(POOL)
        after.close()

    def test_what_was_written_is_read_at_any_offset(self, device: GpuDevice) -> None:
        address = device.alloc(100)
        device.write(address + 3, b"unaligned")
        assert device.read(address + 2, 11) == b"\0unaligned\0"
        assert device.read(address + 100, 0) == b""

    def test_a_full_pool_gives_zero_and_the_device_lives_on(self, device: GpuDevice) -> None:
        assert device.alloc(POOL + 1) == 0
        assert device.alloc(2**63) == 0
        assert device.alloc(2**64 - 1) == 0
        assert device.peak_bytes == 0
        assert device.alloc(POOL)
        assert device.peak_bytes == POOL
        assert device.alloc(1) == 0

    @pytest.mark.parametrize("size", [0, -1])
    def test_an_allocation_of_nothing_is_refused(self, device: GpuDevice, size: int) -> None:
        assert code_of(device.alloc, size) == DEVICE_ARGUMENT.name

    def test_only_the_inside_of_one_allocation_can_be_touched(self, device: GpuDevice) -> None:
        first, second = device.alloc(100), device.alloc(256)
        outside = [
            (0, 1), (first - 1, 1), (first - 1, 2), (first, 101), (first + 100, 1), (first + 101, 0),
            (first, second - first + 1), (second + 256, 1), (2**32 + first, 1), (2**64 - 1, 1), (2**64 - 8, 2**32 - 1),
        ]  # fmt: skip
        for at, n in outside:
            assert code_of(device.read, at, n) == DEVICE_FAULT.name
            assert code_of(device.copy, second, at, n) == DEVICE_FAULT.name
            assert code_of(device.copy, at, second, n) == DEVICE_FAULT.name
        assert code_of(device.write, first, bytes(101)) == DEVICE_FAULT.name
        assert device.read(first, 100) + device.read(second, 256) == bytes(356)

    def test_an_overlapping_copy_moves_what_was_there_before(self, device: GpuDevice) -> None:
        address = device.alloc(16)
        device.write(address, bytes(range(16)))
        device.copy(address + 4, address, 12)
        assert device.read(address, 16) == bytes([0, 1, 2, 3, *range(12)])

    def test_closing_twice_does_nothing(self, device: GpuDevice) -> None:
        device.close()
        device.close()


class TestKernels:
    def launch(self, device: GpuDevice, kernel: str, *arguments: int) -> None:
        device.launch(kernel, -(-COUNT // 64), 64, arguments)
        device.sync()

    def test_elementwise_kernels_agree_with_numpy_and_stop_at_their_count(self, device: GpuDevice) -> None:
        values = np.random.default_rng(7).integers(-(10**6), 10**6, COUNT)
        source, target = uploaded(device, values), device.alloc(8 * COUNT)
        for kernel, arguments, expected in (
            ("square_i64", (), values**2),
            ("clip_i64", (raw(-500), raw(70_000)), np.clip(values, -500, 70_000)),
            ("abs_difference_i64", (raw(-1234),), np.abs(values + 1234)),
        ):
            device.write(target, b"\x55" * 8 * COUNT)
            self.launch(device, kernel, target, source, *arguments, COUNT - 1)
            got = np.frombuffer(device.read(target, 8 * COUNT), np.int64)
            assert np.array_equal(got[:-1], expected[:-1])
            assert got[-1] == 0x5555555555555555
        assert device.read(source, 8 * COUNT) == values.tobytes()

    def test_affine_rounds_twice_as_numpy_does(self, device: GpuDevice) -> None:
        values = np.random.default_rng(7).standard_normal(COUNT)
        source, target = uploaded(device, values), device.alloc(8 * COUNT)
        self.launch(device, "affine_f64", target, source, raw(1.1), raw(-0.3), COUNT)
        assert device.read(target, 8 * COUNT) == (1.1 * values - 0.3).tobytes()

    def test_block_sums_agree_with_numpy_and_add_up(self, device: GpuDevice) -> None:
        values = np.random.default_rng(7).integers(-(2**40), 2**40, COUNT)
        source, partial = uploaded(device, values), device.alloc(8 * 16)
        expected = np.add.reduceat(values, np.arange(0, COUNT, 64))
        for times in (1, 2):
            self.launch(device, "block_sum_i64", partial, source, COUNT)
            assert np.array_equal(np.frombuffer(device.read(partial, 8 * 16), np.int64), times * expected)

    def test_a_pointer_into_no_allocation_is_a_fault(self, device: GpuDevice) -> None:
        address = device.alloc(8)
        for pointer in (0, 8, address + 256, address - 8, 2**32 + address, 2**63):
            assert code_of(self.launch, device, "square_i64", pointer, address, 1) == DEVICE_FAULT.name
            assert code_of(self.launch, device, "square_i64", address, pointer, 1) == DEVICE_FAULT.name

    def test_a_kernel_that_runs_out_of_the_memory_is_stopped_and_the_device_lives_on(self, device: GpuDevice) -> None:
        address = device.alloc(8 * COUNT)
        assert code_of(device.launch, "square_i64", 1024, 1024, (address, address, 2**32 - 1)) == "gpu.fault"
        device.write(address, struct.pack("<q", 12))
        self.launch(device, "square_i64", address, address, 1)
        assert device.read(address, 8) == struct.pack("<q", 144)

    def test_a_bad_launch_is_refused(self, device: GpuDevice) -> None:
        address = device.alloc(16)
        assert code_of(device.launch, "no_such", 1, 1, ()) == KERNEL_UNKNOWN.name
        assert code_of(device.launch, "square_i64", 1, 1, (address + 1, address, 1)) == DEVICE_ARGUMENT.name
        assert code_of(device.launch, "square_i64", 2**32 - 1, 1024, (address, address, 1)) == "gpu.bad_argument"


@given(st.lists(I64, min_size=1, max_size=50), I64, I64)
def test_kernels_agree_with_exact_integers_modulo_2_to_the_64(values: list[int], low: int, high: int) -> None:
    device = CpuDevice(POOL)
    source = uploaded(device, np.array(values, np.int64))
    target, partial = device.alloc(8 * len(values)), device.alloc(8)
    clipped = [min(max(value, low), high) for value in values]
    cases: list[tuple[str, tuple[int, ...], list[int]]] = [
        ("square_i64", (), [value * value for value in values]),
        ("clip_i64", (raw(low), raw(high)), clipped),
        ("abs_difference_i64", (raw(low),), [abs(value - low) for value in values]),
    ]
    for kernel, arguments, expected in cases:
        device.launch(kernel, 1, 64, (target, source, *arguments, len(values)))
        got = struct.unpack(f"<{len(values)}Q", device.read(target, 8 * len(values)))
        assert list(got) == [value % 2**64 for value in expected]
    device.launch("block_sum_i64", 1, 64, (partial, source, len(values)))
    assert int.from_bytes(device.read(partial, 8), "little") == sum(values) % 2**64
    device.close()


def test_the_cpu_device_has_no_larger_pool_than_its_addresses_allow() -> None:
    for size in (-1, MAX_POOL + 1):
        assert code_of(CpuDevice, size) == DEVICE_ARGUMENT.name


def test_a_kernel_that_runs_out_of_the_largest_pool_never_wraps_around_to_its_start() -> None:
    device = CpuDevice(MAX_POOL)
    first = device.alloc(256)
    device.write(first, b"\x11" * 256)
    assert device.alloc(MAX_POOL - 512)
    last = device.alloc(256)
    device.write(last, b"\x22" * 256)
    assert last + 256 > MAX_POOL
    assert code_of(device.launch, "square_i64", 2**18, 1024, (last, first, 2**32 - 1)) == DEVICE_FAULT.name
    assert device.read(first, 256) == b"\x11" * 256
    device.close()


def test_a_job_without_device_memory_gets_none() -> None:
    device = CpuDevice(0)
    assert device.alloc(1) == 0
    device.close()


def test_a_pool_bounds_the_number_of_allocations() -> None:
    pool = Pool(256, MAX_ALLOCATIONS * 512)
    assert all(pool.reserve(1) for _ in range(MAX_ALLOCATIONS))
    assert pool.reserve(1) == 0


@pytest.mark.parametrize(("start", "capacity"), [(0, 1), (255, 1), (256, -1)])
def test_a_pool_that_could_hand_out_a_null_or_unaligned_address_is_not_built(start: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="cannot start"):
        Pool(start, capacity)
