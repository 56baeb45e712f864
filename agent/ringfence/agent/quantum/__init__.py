"""Quantum devices: the port, the gate table, and the statevector adapter."""
