"""From rows of the table to the inputs of a model: clips, crops, masks, batches, and cached convolution features."""
