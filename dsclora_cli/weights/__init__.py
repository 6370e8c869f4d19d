"""Weight files: the catalogue, downloads, and loading and saving of networks. Start at `resolve.py`."""
