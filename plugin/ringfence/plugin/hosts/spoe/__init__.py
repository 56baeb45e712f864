"""HAProxy's stream processing offload: the agent's side of SPOP 2.0."""
