"""Threat detection: patterns across requests, and what is done about them. `port` is the port."""
