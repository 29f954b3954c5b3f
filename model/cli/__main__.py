"""Run the command line as a module: python -m model.cli, deepspeed --module model.cli."""

from model.cli.app import main

if __name__ == "__main__":
    main()
