"""The host adapters: how gateways that people already run ask the decision core. `port` has what all of them share."""
