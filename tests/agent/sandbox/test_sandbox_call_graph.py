"""The call graph: cycles, depth and reach agree with the plainest way of finding them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.sandbox.validation.calls import call_graph
from ringfence.agent.sandbox.wasm import Body, Flow, FunctionType, WasmModule

SIZE = 6
EDGES = st.frozensets(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=12)


def module(imported: int) -> WasmModule:
    """A module of `SIZE` functions of one type, of which the first are imports."""
    bodies = tuple(Body(0, 0, 0) for _ in range(SIZE - imported))
    nothing: tuple[()] = ()
    return WasmModule(
        types=(FunctionType((), ()),),
        imports=nothing,
        functions=(0,) * SIZE,
        bodies=bodies,
        tables=nothing,
        memories=nothing,
        globals=nothing,
        constants=nothing,
        exports=nothing,
        start=None,
        elements=nothing,
        data=nothing,
    )


def flow(callees: set[int], indirect: Mapping[tuple[int, int], int], references: frozenset[int]) -> Flow:
    called = array("I", sorted(callees))
    offsets = array("I", range(len(called)))
    none = (array("I"), array("I"))
    return Flow((offsets, called), indirect, references, none, {}, {}, 1)


def paths(edges: frozenset[tuple[int, int]], node: int, seen: tuple[int, ...] = ()) -> int | None:
    """The nodes of the longest path from `node`, None when it can go on for ever."""
    if node in seen:
        return None
    lengths = [paths(edges, callee, (*seen, node)) for caller, callee in edges if caller == node]
    if None in lengths:
        return None
    return 1 + max((length for length in lengths if length is not None), default=0)


@given(EDGES)
def test_cycles_and_depth(edges: frozenset[tuple[int, int]]) -> None:
    flows = [flow({callee for caller, callee in edges if caller == node}, {}, frozenset()) for node in range(SIZE)]
    graph = call_graph(module(0), flows)
    longest = [paths(edges, node) for node in range(SIZE)]
    assert (graph.cycle is not None) == (None in longest)
    if graph.cycle is None:
        assert graph.depth == max(length for length in longest if length is not None)
    else:
        assert longest[graph.cycle] is None


@given(EDGES, st.integers(0, SIZE - 1))
def test_what_is_reached_is_what_reaches_it(edges: frozenset[tuple[int, int]], node: int) -> None:
    flows = [flow({callee for caller, callee in edges if caller == one}, {}, frozenset()) for one in range(SIZE)]
    graph = call_graph(module(0), flows)
    assert graph.reached(node) == {other for other in range(SIZE) if node in graph.reaching([other])}


def test_imports_take_no_frame_of_the_guest() -> None:
    flows = [flow({0, 1}, {}, frozenset()), *[flow(set(), {}, frozenset())] * (SIZE - 2)]
    graph = call_graph(module(1), flows)
    # Function 1, the first that is defined, calls itself: not an import.
    assert graph.cycle == 1
    flows[0] = flow({0}, {}, frozenset())
    assert call_graph(module(1), flows).depth == 1


def test_an_indirect_call_may_go_to_what_is_referred_to() -> None:
    silent = flow(set(), {}, frozenset())
    calling = flow(set(), {(0, 0): 5}, frozenset({3}))
    flows = [calling, silent, silent, flow({4}, {}, frozenset()), silent, silent]
    graph = call_graph(module(0), flows)
    assert graph.reached(0) >= {0, 3, 4}
    assert not graph.reached(0) & {1, 2, 5}
    assert (graph.cycle, graph.depth) == (None, 3)
    flows[4] = calling
    assert call_graph(module(0), flows).cycle is not None


def test_a_chain_of_calls_as_long_as_a_module_may_be_is_followed() -> None:
    count = 50_000
    nothing: tuple[()] = ()
    long = WasmModule(
        types=(FunctionType((), ()),),
        imports=nothing,
        functions=(0,) * count,
        bodies=(Body(0, 0, 0),) * count,
        tables=nothing,
        memories=nothing,
        globals=nothing,
        constants=nothing,
        exports=nothing,
        start=None,
        elements=nothing,
        data=nothing,
    )
    none = (array("I"), array("I"))
    flows = [
        Flow((array("I", [0]), array("I", [min(node + 1, count)])), {}, frozenset(), none, {}, {}, 1)
        for node in range(count)
    ]
    assert call_graph(long, flows).depth == count
