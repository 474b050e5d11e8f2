"""The front process: HTTP in, HTTP out. No torch in it, which a test holds against its mappings."""
