"""The notebook: finished and running experiments in, pictures and tables about them out."""
