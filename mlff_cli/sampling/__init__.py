"""All-atom sampling: what is asked for, what is simulated, and how it goes on after a stop."""
