"""The agent's API: the only part of the agent that gateways and clients may import."""
