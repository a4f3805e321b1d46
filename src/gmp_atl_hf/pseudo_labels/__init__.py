"""From a trained model to frame labels: hidden states, clusters, and the columns that hold them."""
