"""The output of a frozen convolution front end, computed once per recording and checkpoint."""
