"""The per-host agent: admits jobs, runs each in a sandbox, and signs what happened."""
