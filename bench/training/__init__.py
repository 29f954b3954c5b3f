"""Rate of training, on CPUs beside the Hugging Face Trainer and on GPUs; effect of large batches; one whole job."""
