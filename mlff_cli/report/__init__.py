"""Figures and pages a person looks at."""
