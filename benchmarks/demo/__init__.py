"""The main job, end to end, on one task."""
