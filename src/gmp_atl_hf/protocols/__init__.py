"""From the table to folds: who is in train, development and test, and the proof that nobody is in two of them."""
