"""The fine-tuned tower judged on test; a change here trains nothing."""
