"""The kinds of protocol; importing them loads no library."""

PROTOCOLS = ("leave-one-speaker-out", "leave-one-session-out", "group-k-fold", "given")
"""What may suit a single corpus."""

KINDS = (*PROTOCOLS, "cross-corpus")
"""All of them; the last needs two corpora."""
