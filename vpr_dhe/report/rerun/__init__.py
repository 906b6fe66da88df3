"""Recordings of runs for the viewer Rerun, https://rerun.io."""
