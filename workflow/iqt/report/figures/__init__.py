"""Figures, each a function of files of metrics/ or tables/."""
