"""Data sets: labelled rows in a folder whose every byte is pinned by its manifest."""
