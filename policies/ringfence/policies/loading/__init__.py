"""Loads bundles in a limited child process, so that no policy text can end the process that decides."""
