"""Runs one untrusted guest in one locked-down process, and keeps every limit by the kernel or the runtime."""
