"""Trust in a host: its attestation result now, its reputation over time, its posture; a score with its reasons."""
