"""Live sessions: the store, what ends them, and what survives a restart. `port` is the port."""
