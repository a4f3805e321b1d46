"""HuBERT pre-training: the retraining step with labels that need no emotions, from MFCCs first, from itself then."""
