"""The command line: parse, call the stage, print, turn errors into exit codes."""
