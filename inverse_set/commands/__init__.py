"""What each command does, one file a command; `inverse_set.cli` parses."""
