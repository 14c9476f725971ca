"""Layers of polygons to files, streamed batch by batch; `export` has the table of formats."""
