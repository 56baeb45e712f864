"""Who may call whom: the call graph, recursion, depth, and what can be reached.

A call through a table may go to every function of its type that the module ever refers to: more than really happens,
never less. So what is called acyclic is, and a bound of depth holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ringfence.agent.sandbox.wasm import Flow, FunctionType, WasmModule


@dataclass(frozen=True, slots=True)
class CallGraph:
    """`successors` of every function, and behind them of every type that is called through a table.

    `cycle` is a function that may call itself, or None; then `depth` is how many frames of the guest there can be.
    """

    successors: tuple[tuple[int, ...], ...]
    cycle: int | None
    depth: int

    def reached(self, function: int) -> set[int]:
        """The functions that a call of `function` may lead to, itself included."""
        return _closure(self.successors, [function])

    def reaching(self, targets: Iterable[int]) -> set[int]:
        """The functions whose call may lead to one of `targets`, those included."""
        callers: list[list[int]] = [[] for _ in self.successors]
        for caller, callees in enumerate(self.successors):
            for callee in callees:
                callers[callee].append(caller)
        return _closure(callers, targets)


NO_CALLS = CallGraph((), None, 0)


def call_graph(module: WasmModule, flows: Sequence[Flow]) -> CallGraph:
    """The graph of a module whose functions do what `flows` say."""
    count = len(module.functions)
    nodes: dict[FunctionType | None, int] = {}
    successors: list[tuple[int, ...]] = [()] * module.imported_functions
    for flow in flows:
        callees = {callee for callee in set(flow.calls[1]) if callee < count}
        for kind, _ in flow.indirect:
            called = module.types[kind] if kind < len(module.types) else None
            callees.add(nodes.setdefault(called, count + len(nodes)))
        successors.append(tuple(callees))
    targets: defaultdict[FunctionType | None, set[int]] = defaultdict(set)
    for function in _referred(module, flows):
        if function < count:
            targets[module.function_type(function)].add(function)
    successors += [tuple(targets[called]) for called in nodes]
    cycle, depth = _depth(successors, module.imported_functions, count)
    return CallGraph(tuple(successors), cycle, depth)


def _referred(module: WasmModule, flows: Sequence[Flow]) -> set[int]:
    """Every function that a reference may name."""
    found: set[int] = set()
    for segment in module.elements:
        found.update(segment.functions)
    for constant in module.constants:
        found.update(constant.functions)
    for flow in flows:
        found.update(flow.references)
    return found


def _closure(edges: Sequence[Iterable[int]], first: Iterable[int]) -> set[int]:
    seen = set(first)
    waiting = list(seen)
    while waiting:
        for node in edges[waiting.pop()]:
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen


def _depth(successors: Sequence[tuple[int, ...]], first: int, end: int) -> tuple[int | None, int]:
    """A function on a cycle, and the longest path, counted in functions from `first` to before `end`.

    A depth-first search: a node still open that is met again closes a cycle (Cormen et al., section 20.3).
    """
    unseen, still_open = -1, -2
    depths = [unseen] * len(successors)
    for root in range(len(successors)):
        if depths[root] != unseen:
            continue
        path = [(root, iter(successors[root]))]
        depths[root] = still_open
        while path:
            node, rest = path[-1]
            for callee in rest:
                if depths[callee] == still_open:
                    # What calls a type is a function, and on the same cycle.
                    return (callee if callee < end else node), 0
                if depths[callee] == unseen:
                    depths[callee] = still_open
                    path.append((callee, iter(successors[callee])))
                    break
            else:
                path.pop()
                below = max((depths[callee] for callee in successors[node]), default=0)
                depths[node] = below + (first <= node < end)
    return None, max(depths, default=0)
