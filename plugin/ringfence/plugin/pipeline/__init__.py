"""The two pipelines of the decision core, and the stages that they share. Pure: no I/O, clock and randomness given."""
