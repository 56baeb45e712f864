"""GPU devices: the port, the kernel catalogue, the pool a job allocates from, and the built-in adapters."""
