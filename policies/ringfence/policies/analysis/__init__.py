"""What can be said about a bundle before it decides: differences, findings, coverage, explanations.

Pure: bundles and queries in, values out. `diff` and `lint` need z3 (extra `policy-tools`), imported when they run.
"""
