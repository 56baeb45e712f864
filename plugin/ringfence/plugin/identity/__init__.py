"""Identity factors: how a caller proves who it is, beside the key that opened its session. `port` is the port."""
