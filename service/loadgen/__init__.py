"""`instant-refine bench URL`: a load generator for any server that speaks the API."""
