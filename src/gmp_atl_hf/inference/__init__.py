"""From a trained model to scores: any recording in, emotions out, in batches and in windows over long audio."""
