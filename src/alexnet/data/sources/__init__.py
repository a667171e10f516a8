"""Sources of images: folders, archives, tables, Hugging Face datasets, ILSVRC."""
