"""Runs the public WebAssembly suites and real modules through the sandbox, by security level."""
