"""Small checkpoints of every family's real architecture, built here instead of downloaded."""
