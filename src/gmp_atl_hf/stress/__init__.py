"""What a model loses on recordings that are not as clean as those of a corpus: changes, conditions, and their test."""
