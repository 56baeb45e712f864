"""The device broker: the process that holds one job's devices and executes its worker's command batches."""
