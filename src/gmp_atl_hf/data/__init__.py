"""From folders of recordings to the table: reading, checking, and who is in train, development and test."""
