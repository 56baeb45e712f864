"""Risk: an explainable score of each request, from what its principal and its source did lately. `port` is the port."""
