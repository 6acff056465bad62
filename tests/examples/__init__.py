"""The shipped examples, run as their readers run them."""
