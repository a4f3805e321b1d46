"""HuBERT's forward pass without padding on a CPU, in float32 or int8."""
