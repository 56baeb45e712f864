"""The built-in gateway: HTTP in front of one gate, for whoever has no other gateway."""
