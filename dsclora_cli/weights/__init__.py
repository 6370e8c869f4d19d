"""Weight files: the catalog, downloads, and loading and saving of networks. Start at `resolve.py`."""
