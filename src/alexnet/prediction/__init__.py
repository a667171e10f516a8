"""Classification of images by a trained network."""
