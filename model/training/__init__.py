"""The training job: prepare -> stage -> results."""
