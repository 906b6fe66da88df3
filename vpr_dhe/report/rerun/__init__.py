"""Recordings for the viewer Rerun, https://rerun.io: what happened, frame by frame."""
