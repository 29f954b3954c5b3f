"""The command promoter-bert: all commands, composed in app."""
