"""Places outside the local file system: object stores, archives and the web, through fsspec."""
