"""Trajectories of one molecule: files of every format as frames by row, made whole, checked."""
