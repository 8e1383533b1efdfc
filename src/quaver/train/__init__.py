"""Making models: text, synthetic speech, codec training, language model training."""
