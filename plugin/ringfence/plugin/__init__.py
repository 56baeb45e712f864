"""The gateway plugin: decides whether a request may reach a host, and forwards it with a grant."""
