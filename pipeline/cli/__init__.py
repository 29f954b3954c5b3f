"""The data commands of promoter-bert."""
