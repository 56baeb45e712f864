"""Cedar's typed syntax tree compiled to Python: the hot path of the policy decision point.

`decider.CompiledDecider` answers Ringfence's queries, `guarded.GuardedDecider` does so with cedarpy looking over its
shoulder, and `programs.Program` answers any Cedar request, which is how the compiler is compared with cedarpy.
"""
