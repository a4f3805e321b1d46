"""Embeddings of recordings by any speech encoder: one layer, pooled over time or frame by frame, into a file."""
