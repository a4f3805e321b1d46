"""What travels to the Hub with a checkpoint: torch and transformers only, single-level relative imports.

The folder is flat because `trust_remote_code` can carry nothing else.
"""
